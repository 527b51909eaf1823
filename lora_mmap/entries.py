"""The list of (source, strength) that users pass, opened and checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import log
from .adapter import Adapter
from .adapter_cache import adapter_cache
from .adapter_sources import AdapterSource, identity, locate, open_adapter
from .errors import ArgumentError
from .leases import Lease
from .plan import NEGLIGIBLE

AnySource = AdapterSource | Adapter
Entry = tuple[Adapter, float]
Entries = Sequence[tuple[AnySource, float] | tuple[AnySource, float, Any]]


def open_entries(function: str, adapters: Entries, leases: list[Lease], use_cache: bool = False) -> list[Entry]:
    """Opens every distinct source once, or takes it from the cache; ``leases`` receives what we have to give back."""
    if isinstance(adapters, (str, bytes, os.PathLike, Mapping)) or not isinstance(adapters, Iterable):
        raise ArgumentError(
            f"[{function}] adapters is a {type(adapters).__name__}, expected a list of (source, strength)"
        )
    known: dict[object, Adapter] = {}
    entries = []
    for position, entry in enumerate(adapters):
        if not isinstance(entry, (tuple, list)) or not 2 <= len(entry) <= 3:
            raise ArgumentError(f"[{function}] adapters[{position}] is {entry!r:.80}, expected (source, strength)")
        source = entry[0]
        strength = finite_strength(function, entry[1], f"adapters[{position}] strength")
        if abs(strength) < NEGLIGIBLE:
            log.skipped(source, strength)
            continue
        if isinstance(source, Adapter):
            source.require_open(function)
            entries.append((source, strength))
            continue
        if not isinstance(source, (str, os.PathLike, Mapping)):
            raise ArgumentError(
                f"[{function}] adapters[{position}] source is a {type(source).__name__}, expected a path, a dict of "
                "tensors or an Adapter"
            )
        key = identity(source)
        if key not in known:
            lease = _lease(function, source, use_cache)
            leases.append(lease)
            known[key] = lease.adapter
            if lease.is_fresh:
                log.opened(lease.adapter)
        entries.append((known[key], strength))
    return entries


def _lease(function: str, source: AdapterSource, use_cache: bool) -> Lease:
    if use_cache:
        return adapter_cache.lease(function, source)
    return Lease.alone(open_adapter(source))


def without(function: str, sources: Sequence[AnySource], entries: Sequence[Entry]) -> list[Entry]:
    """The entries that come from none of these paths or open adapters. Raises ArgumentError for what is neither."""
    if isinstance(sources, (str, os.PathLike, Adapter)) or not isinstance(sources, Iterable):
        raise ArgumentError(
            f"[{function}] adapters is a {type(sources).__name__}, expected a list of paths or Adapters"
        )
    left = list(entries)
    for position, source in enumerate(sources):
        if not isinstance(source, (str, os.PathLike, Adapter)):
            raise ArgumentError(
                f"[{function}] adapters[{position}] is a {type(source).__name__}, expected a path or an open Adapter"
            )
        left = [entry for entry in left if not _comes_from(entry[0], source)]
    return left


def _comes_from(adapter: Adapter, source: str | os.PathLike[str] | Adapter) -> bool:
    if isinstance(source, Adapter):
        return adapter is source
    return adapter.path is not None and adapter.path.resolve() == locate(source).resolve()


def finite_strength(function: str, value: object, what: str) -> float:
    """``value`` as a float. Raises ArgumentError for what is no finite number."""
    try:
        strength = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(f"[{function}] {what} is {value!r}, expected a number") from None
    if not math.isfinite(strength):
        raise ArgumentError(f"[{function}] {what} is {strength}, expected a finite number")
    return strength
