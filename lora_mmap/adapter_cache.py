"""Open adapters, their keys classified, kept for the next one who asks for the same file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from weakref import WeakSet

from . import cache_settings
from .adapter import Adapter
from .adapter_sources import AdapterSource, cache_key, locate, open_adapter
from .leases import Lease
from .resident_factors import ResidentFactors
from .sharing import ForkSafeLock
from .tensor_source import FileTensors


class _Entry:
    """One file. ``adapter`` is None until somebody has opened it, holding ``opening``."""

    def __init__(self, key: object, path: Path) -> None:
        self.key = key
        self.path = path
        self.opening = ForkSafeLock()
        self.adapter: Adapter | None = None
        self.leases: WeakSet[Lease] = WeakSet()
        self.is_cached = True

    @property
    def header_nbytes(self) -> int:
        source = self.adapter.source if self.adapter else None
        return source.header.header_nbytes if isinstance(source, FileTensors) else 0

    @property
    def factor_nbytes(self) -> int:
        resident = self.adapter.resident if self.adapter else None
        return resident.nbytes if resident else 0

    def let_go_of_factors(self) -> int:
        """Returns the bytes that were kept."""
        nbytes = self.factor_nbytes
        if self.adapter is not None and self.adapter.resident is not None:
            self.adapter.resident.let_go()
        return nbytes

    def let_go(self) -> None:
        """The cache has it no more; its file stays open while somebody uses it."""
        self.is_cached = False
        self.let_go_of_factors()
        if self.adapter is not None and not self.leases:
            self.adapter.close()


class AdapterCache:
    """At most :func:`.cache_settings.max_entries` safetensors files, those used last. A file is opened and classified
    once, by whoever asks for it first; the others wait. It is known by its identity (device, inode, size, time of its
    last change, and the same of a configuration beside it), so a file that was replaced is another one."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock(threading.RLock)  # a lease that dies inside a block is given back there
        self._entries: OrderedDict[object, _Entry] = OrderedDict()  # those used last at the end
        self._hits = self._misses = self._evictions = 0

    def lease(self, function: str, source: AdapterSource) -> Lease:
        """The adapter of a file, opened if need be. Dicts, pickles, and everything while the cache is off, are opened
        for the caller alone. Raises as :func:`.open_adapter` does."""
        limit = cache_settings.max_entries(function)
        keeps_factors = cache_settings.max_factor_nbytes(function) > 0
        while True:
            key = cache_key(source) if limit else None
            if key is None or not isinstance(source, (str, os.PathLike)):
                return Lease.alone(open_adapter(source))
            entry, is_fresh = self._enter(key, locate(source)), False
            with entry.opening.native:
                if entry.adapter is None and entry.is_cached:
                    self._open(entry, source, keeps_factors)
                    is_fresh = True
                lease = self._use(entry, is_fresh)
            if lease is not None:
                self._shrink(limit)
                return lease

    def info(self) -> dict[str, int]:
        """Entries, bytes by kind, and what was counted since the process began."""
        with self._lock.native:
            entries = list(self._entries.values())
            return {
                "entries": len(entries),
                "headers": sum(entry.header_nbytes for entry in entries),
                "factors": sum(entry.factor_nbytes for entry in entries),
                "hits": self._hits,
                "misses": self._misses,
                "evictions": self._evictions,
            }

    def clear(self) -> dict[str, int]:
        """Lets go of every entry. Returns how many there were, and the bytes freed: what is still in use is freed, and
        its file closed, when it has been given back."""
        with self._lock.native:
            entries = list(self._entries.values())
            self._entries.clear()
            unused = [entry for entry in entries if not entry.leases]
            freed = {
                "entries": len(entries),
                "headers": sum(entry.header_nbytes for entry in unused),
                "factors": sum(entry.factor_nbytes for entry in unused),
            }
            for entry in entries:
                entry.let_go()
        return freed

    def _enter(self, key: object, path: Path) -> _Entry:
        with self._lock.native:
            entry = self._entries.get(key)
            if entry is not None:
                self._hits += 1
                self._entries.move_to_end(key)
                return entry
            self._misses += 1
            for former in [other for other in self._entries.values() if other.path == path]:
                self._evict(former)
            entry = self._entries[key] = _Entry(key, path)
            return entry

    def _open(self, entry: _Entry, source: AdapterSource, keeps_factors: bool) -> None:
        try:
            adapter = open_adapter(source)
            is_same = cache_key(source) == entry.key
        except BaseException:
            self._forget(entry)
            raise
        if keeps_factors:
            adapter.resident = ResidentFactors(self._lock, lambda nbytes: self._make_room(entry, nbytes))
        entry.adapter = adapter
        if not is_same:  # it was replaced in between
            self._forget(entry)

    def _use(self, entry: _Entry, is_fresh: bool) -> Lease | None:
        """None for an entry that was dropped meanwhile."""
        with self._lock.native:
            if entry.adapter is None or not entry.is_cached:
                return None
            lease = Lease(entry.adapter, lambda lease: self._give_back(entry, lease), is_fresh)
            entry.leases.add(lease)
            return lease

    def _give_back(self, entry: _Entry, lease: Lease) -> None:
        with self._lock.native:
            entry.leases.discard(lease)
            if not entry.is_cached:
                entry.let_go()

    def _shrink(self, limit: int) -> None:
        with self._lock.native:
            opened = [entry for entry in self._entries.values() if entry.adapter is not None]
            for entry in opened[: max(0, len(self._entries) - limit)]:
                self._evict(entry)

    def _make_room(self, entry: _Entry, nbytes: int) -> bool:
        """True where so many bytes fit beside the factors that are kept, after those of adapters that were used longer
        ago are gone. The caller holds the lock."""
        limit = cache_settings.max_factor_nbytes("lora_cache")
        if not entry.is_cached or nbytes > limit:
            return False
        total = sum(other.factor_nbytes for other in self._entries.values())
        for other in self._entries.values():
            if total + nbytes > limit and other is not entry:
                total -= other.let_go_of_factors()
        return total + nbytes <= limit

    def _evict(self, entry: _Entry) -> None:
        self._evictions += 1
        self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        with self._lock.native:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            entry.let_go()


adapter_cache = AdapterCache()
