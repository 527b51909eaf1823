"""A branch with ranks of ours in it: what takes them out again is the branch itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..errors import ModelError
from .branch import Branch, Factors, is_marked
from .branch_place import BranchPlace


@dataclass(slots=True)
class HeldBranch:
    """``base`` ranks of the module's own, then ``capacity`` of ours, of which ``used`` hold adapters.

    ``names`` are all that lead to the module. ``retained`` are the parts of squared norms that cutting down left, by
    entry. ``originals`` are kept for ``restore="backup"`` only: the module gets its very tensors back.
    """

    place: BranchPlace
    base: int
    capacity: int
    used: int
    dtype: torch.dtype
    names: tuple[str, ...] = ()
    retained: dict[int, float] = field(default_factory=dict)
    originals: Factors | None = None

    @property
    def tier(self) -> str:
        return "branch" if self.originals is None else "backup"

    @property
    def nbytes(self) -> int:
        """Bytes held for undoing alone."""
        return sum(tensor.nbytes for tensor in self.originals or ())

    @property
    def added_nbytes(self) -> int:
        """Bytes of our ranks."""
        return self.capacity * (self.place.rows + self.place.cols) * self.dtype.itemsize

    @property
    def branch(self) -> Branch | None:
        """None where the module is gone."""
        return None if self.place.bearer() is None else self.place.branch

    def becomes_base(self) -> None:
        """What was put into the branch is the module's own from now on."""
        branch = self.branch
        if branch is not None:
            branch.unmark()

    def describe(self) -> dict[str, Any]:
        """For the report."""
        found = {"target": self.place.kind, "base_rank": self.base, "rank": self.used, "capacity": self.capacity}
        return {**found, "retained_energy": dict(self.retained)} if self.retained else found

    def changed(self) -> str:
        """What somebody else did to the branch, or an empty text."""
        branch = self.branch
        if branch is None:
            return ""
        if not is_marked(branch.module) or branch.ranks != self.base + self.capacity:
            return f"{self.base + self.capacity} ranks, {self.base} of them its own, found {branch.ranks}"
        if branch.dtype != self.dtype:
            return f"{self.dtype}, found {branch.dtype}"
        return ""


def require_unchanged(function: str, held: Iterable[HeldBranch]) -> None:
    """Raises ModelError where a branch was converted or replaced."""
    for one in held:
        if change := one.changed():
            raise ModelError(
                f"[{function}] the low-rank branch of module '{one.place.name}' was converted or replaced since "
                f"adapters were put into it: expected {change}; undo before converting a model, or "
                "reset(model, force=True) to forget what is out of reach"
            )


def within_reach(held: Mapping[int, HeldBranch]) -> dict[int, HeldBranch]:
    """Those that can be undone: their modules live and have the ranks that were put there, if in another dtype."""
    found = {}
    for key, one in held.items():
        branch = one.branch
        if branch is not None and is_marked(branch.module) and branch.ranks == one.base + one.capacity:
            found[key] = replace(one, dtype=branch.dtype)
    return found


def living(held: Mapping[int, HeldBranch]) -> set[int]:
    """The modules of those that are not gone."""
    return {key for key, one in held.items() if one.place.bearer() is not None}
