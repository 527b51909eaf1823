"""A weight that is not pristine: what was added to it, and what brings its bytes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from . import _C, native_types
from .base_checkpoint import BaseTensor
from .geometry import Geometry
from .lowering.jobs import Place
from .restore import Saved, place_of_copy
from .terms import WeightPlan

# (rows, cols, dtype, whether it has corrections)
MakeRecord: TypeAlias = Callable[[int, int, str, bool], native_types.Record]
# Weights that a journal may be kept of.
JOURNALED = frozenset({"F16", "BF16", "F32"})
# A journal that takes more than this part of a backup becomes one.
_WORTHWHILE = 0.6


class Undoable(Protocol):
    """What can be undone, and what it takes."""

    @property
    def tier(self) -> str: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(slots=True)
class Held:
    """``records``, one per rectangle of ``plan``, tell what was written and, in a journal, what rounding lost; what was
    fused in fast arithmetic has none. ``backup`` and ``base`` have the pristine bytes, in memory or in a file."""

    plan: WeightPlan
    records: list[native_types.Record] = field(default_factory=list)
    backup: Saved | None = None
    base: BaseTensor | None = None
    storage: StorageWeakRef = field(init=False)  # that was written to; it may be gone

    def __post_init__(self) -> None:
        storage = self.geometry.weight.untyped_storage()
        self.storage = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    @classmethod
    def planned(cls, plan: WeightPlan, journal: bool, make: MakeRecord = _C.Record) -> Held:
        """What a weight is going to hold. ``make`` makes records for where it is."""
        return cls(plan, _records(plan, journal, make))

    @property
    def has_corrections(self) -> bool:
        """True where a journal brings the pristine bytes back, or shall."""
        return any(record.has_corrections for record in self.records)

    @property
    def geometry(self) -> Geometry:
        return self.plan.geometry

    @property
    def names(self) -> list[str]:
        """Of the parameter in the model; tied ones have several."""
        return list(dict.fromkeys(geometry.path for geometry in (self.geometry, *self.plan.aliases())))

    @property
    def tier(self) -> str:
        """``file``, ``backup`` or ``journal``."""
        if self.base is not None:
            return "file"
        return "journal" if self.backup is None else "backup"

    @property
    def is_file_whole(self) -> bool:
        """True where the file has the weight as it was fused into: in one piece."""
        return self.base is not None and len(self.records) == 1 and self.plan.is_covered

    @property
    def nbytes(self) -> int:
        """Bytes held for undoing alone, the factors aside."""
        return sum(record.nbytes for record in self.records) + (self.backup.nbytes if self.backup else 0)

    @property
    def pristine(self) -> Place | None:
        """Where the pristine values lie in memory, if they do."""
        return None if self.backup is None else place_of_copy(self.backup)

    @property
    def is_overgrown(self) -> bool:
        """True for a journal that a backup would hardly exceed."""
        return self.tier == "journal" and sum(record.nbytes for record in self.records) > (
            _WORTHWHILE * sum(record.backup_nbytes for record in self.records)
        )

    def lies_in(self, parameter: torch.Tensor) -> bool:
        """True where a parameter has the very storage that was written to, not another at the same address."""
        try:
            return bool(parameter.untyped_storage()._cdata == self.storage.cdata)
        except (RuntimeError, NotImplementedError):  # quantised and sparse ones have none
            return False

    def at(self, place: Geometry) -> Held:
        """The same weight after it has moved."""
        backup = replace(self.backup, geometry=place) if self.backup else None
        return Held(self.plan.at(place), self.records, backup, self.base)

    def becomes_backup(self, saved: Saved) -> None:
        self.backup = saved
        self._forget_corrections()

    def starts_over(self, saved: Saved, make: MakeRecord) -> None:
        """As a weight that a copy brings back and that nothing was written to yet."""
        self.backup = saved
        self.records = _records(self.plan, False, make)

    def becomes_file(self, base: BaseTensor) -> None:
        self._forget_corrections()
        self.base, self.backup = base, None

    def _forget_corrections(self) -> None:
        for record in self.records:
            record.forget_corrections()


def _records(plan: WeightPlan, journal: bool, make: MakeRecord) -> list[native_types.Record]:
    dtype = plan.geometry.dtype
    return [make(bottom - top, right - left, dtype, journal) for (top, bottom), (left, right), _ in plan.rectangles()]


class Move(NamedTuple):
    """A weight's way from what it holds to what it shall hold; None is pristine."""

    old: Held | None
    new: Held | None

    @property
    def held(self) -> Held:
        """One of the two."""
        held = self.new or self.old
        assert held is not None
        return held

    @property
    def reversed(self) -> Move:
        return Move(self.new, self.old)


def cost(held: Iterable[Undoable]) -> dict[str, dict[str, int]]:
    """Modules and bytes by tier."""
    total: dict[str, dict[str, int]] = {}
    for one in held:
        tier = total.setdefault(one.tier, {"modules": 0, "bytes": 0})
        tier["modules"] += 1
        tier["bytes"] += one.nbytes
    return total


def cost_by_module(held: Iterable[Held]) -> dict[str, dict[str, Any]]:
    """Tier and bytes of each module's parameters together; of several tiers the one with most bytes is named."""
    costs: dict[str, dict[str, int]] = {}
    for one in held:
        for name in {geometry.name for geometry in one.plan.aliases()}:
            tiers = costs.setdefault(name, {})
            tiers[one.tier] = tiers.get(one.tier, 0) + one.nbytes
    return {
        name: {"tier": max(tiers, key=tiers.__getitem__), "bytes": sum(tiers.values())} for name, tiers in costs.items()
    }
