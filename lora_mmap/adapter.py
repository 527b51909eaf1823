"""An adapter that is open: its tensors listed, its keys classified, nothing of its bulk read yet."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .adapter_metadata import AdapterMetadata, read_metadata
from .errors import ClosedError
from .families import key_tables
from .families.evidence import likeliest
from .families.prefixes import components
from .sharing import ForkSafeLock, lazy
from .tensor_source import FileTensors, MemoryTensors

if TYPE_CHECKING:
    from .pairing import Pair, Recognised
    from .resident_factors import ResidentFactors


class Group(NamedTuple):
    """The tensors of one module: ``members`` are (suffix table index, tensor index), ``starts`` (offset, prefix)."""

    stem: str
    infix: str
    starts: tuple[tuple[int, int], ...]
    members: tuple[tuple[int, int], ...]
    rules: tuple[int, ...]

    @property
    def path(self) -> str:
        """The module's path as the file has it, without prefixes; PEFT's patterns are meant for it."""
        return self.stem[self.starts[-1][0] :]


class Adapter:
    """One LoRA: format, dialect, family, ranks, alphas and byte counts, with tensors read on demand.

    Safe to share between threads and with forked processes. Keys are classified once, when the adapter is opened.
    """

    def __init__(self, source: FileTensors | MemoryTensors, label: str, path: Path | None) -> None:
        self.source = source
        self.label = label
        self.path = path
        self._closed = False
        self.opening_nbytes = source.bytes_read  # read from the file to open it
        self._unreported_nbytes = 0
        self.tables = key_tables()
        self.classification = source.classify(self.tables.grammar)
        self.metadata: AdapterMetadata = read_metadata(source.metadata, path)
        self.pairs: list[Pair | Recognised] | None = None  # filled by pairing.pair_up, once
        self.resident: ResidentFactors | None = None  # factors that the cache keeps
        self._alphas: dict[int, float] | None = None
        self._lock = ForkSafeLock()

    def __len__(self) -> int:
        return len(self.source)

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Adapter {self.label}: {len(self)} tensors, {self.dialect}>"

    def keys(self) -> list[str]:
        """All tensor names, in file order."""
        return list(self.source.names)

    def tensor(self, name: str) -> torch.Tensor:
        """Reads one tensor into CPU memory of its own, at its own dtype. Raises KeyError, ClosedError or ReadError."""
        self.require_open("Adapter.tensor")
        return self.source.tensor(self.source.names.index(name) if name in self.source.names else _missing(name, self))

    def close(self) -> None:
        """Releases the file. Further reads raise ClosedError; closing twice is fine."""
        self._closed = True
        self.source.close()

    def require_open(self, function: str) -> None:
        if self._closed:
            raise ClosedError(f"[{function}] {self.label}: the adapter was closed")

    @lazy
    def groups(self) -> list[Group]:
        """The tensors gathered by module, in order of first appearance."""
        return [Group(*group) for group in self.classification.groups()]

    @lazy
    def named_groups(self) -> dict[str, int]:
        """Per stem with tensors under an adapter's name (``lora_A.default.weight``): the first such group."""
        named = [(group.stem, position) for position, group in enumerate(self.groups) if group.infix]
        return dict(reversed(named))

    def role(self, suffix: int) -> str:
        return self.tables.suffixes[suffix].role

    def alphas(self) -> dict[int, float]:
        """The values of all alpha tensors, by tensor index; read once."""
        with self._lock.native:
            if self._alphas is None:
                indices = self.classification.alphas
                self._alphas = dict(zip(indices, self.source.scalars(indices), strict=True))
                self._unreported_nbytes = self.source.bytes_read - self.opening_nbytes
            return self._alphas

    def take_alphas_nbytes(self) -> int:
        """Bytes read for :meth:`alphas`, to whoever asks first, for a report; 0 afterwards."""
        with self._lock.native:
            nbytes, self._unreported_nbytes = self._unreported_nbytes, 0
        return nbytes

    def component(self, group: Group) -> str | None:
        """The pipeline component that the group's prefixes name; None where they do not tell."""
        found = None
        for _, prefix in group.starts:
            if prefix >= 0:
                found = self.tables.prefixes[prefix].component or found
        return found

    @lazy
    def group_components(self) -> list[str | None]:
        """The pipeline component that each group's prefixes name, or None where they do not tell."""
        known = components()
        meanings = [known.index(prefix.component) if prefix.component else -1 for prefix in self.tables.prefixes]
        return [None if of < 0 else known[of] for of in self.classification.meanings_of_prefixes(meanings)]

    @lazy
    def mixes_components(self) -> bool:
        """True when the keys speak of several pipeline components (a UNet and its text encoders, say)."""
        prefixes = self.classification.prefixes
        return len({self.tables.prefixes[prefix].component for prefix in prefixes} - {None}) > 1

    @lazy
    def is_plain(self) -> bool:
        """True when nothing but a group's own tensors decides whether it is a plain low-rank pair."""
        return not any(config.obstacle for config in self.metadata.configs.values()) and all(
            map(math.isfinite, self.alphas().values())
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(self.source.nbytes)

    @lazy
    def dialect(self) -> str:
        """The commonest prefix and spelling, e.g. ``lora_unet_ + lora_down/lora_up (kohya)``."""
        votes: Counter[tuple[str, str, str]] = Counter()
        for group in self.groups:
            spelling = self.tables.suffixes[group.members[0][0]].spelling
            spelling = next(
                (s for suffix, _ in group.members if (s := self.tables.suffixes[suffix].spelling)), spelling
            )
            prefix = self.tables.prefixes[group.starts[-1][1]] if len(group.starts) > 1 else None
            text = group.stem[: group.starts[-1][0]]
            votes[text, spelling or "-", prefix.dialect if prefix else "bare"] += 1
        if not votes:
            return "none"
        (text, spelling, name), _ = votes.most_common(1)[0]
        return f"{text + ' + ' if text else ''}{spelling} ({name})"

    @lazy
    def family(self) -> str | None:
        """The family that knows most of the names, or None where no table knows any."""
        return self.families[0] if self.families else None

    @lazy
    def families(self) -> list[str]:
        """All families that know equally many of the names and whose widths agree with the shapes, likeliest first."""
        return likeliest(self.tables, self.groups, self.source.shapes, self.metadata.base_model)

    def describe(self) -> dict[str, Any]:
        """Everything the keys tell, as plain data: no model, no tensor data besides the alphas is read."""
        from .describe import describe

        return describe(self)


def _missing(name: str, adapter: Adapter) -> int:
    raise KeyError(f"[Adapter.tensor] {adapter.label}: no tensor '{name}' among {len(adapter)}")
