"""A module whose weight nobody may write to, as the planner sees it: a matrix that factors are put beside."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import nn

from . import awq, svdquant
from .branch import Branch
from .rank_copies import RankCopies, resized
from .side_branch import PlainBranch
from .svdquant import PackedBranch

SVDQUANT, AWQ, SIDE_BRANCH = "svdquant", "awq", "side_branch"


@dataclass(slots=True, eq=False)
class BranchPlace:
    """``rows`` output and ``cols`` input features of the linear module ``name``, and which target it takes."""

    name: str
    kind: str
    rows: int
    cols: int
    bearer: weakref.ref[nn.Module]
    column_map: None = None
    kernel: int = 1

    @property
    def branch(self) -> Branch:
        """Of the module, which lives as long as its model."""
        module = self.bearer()
        assert module is not None
        return PackedBranch(module) if self.kind == SVDQUANT else PlainBranch(module)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.rows, self.cols))

    @property
    def path(self) -> str:
        """What errors call it."""
        return self.name

    @property
    def dtype(self) -> str:
        """Of the factors in its branch."""
        return str(self.branch.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where they are; ``meta`` where they are nowhere."""
        return self.branch.device

    @property
    def within_reach(self) -> bool:
        """True where there is something to put factors beside."""
        return self.device.type != "meta"

    @property
    def is_modulation(self) -> bool:
        """True for AWQ layers that are left alone unless somebody asks."""
        return self.kind == AWQ and awq.is_modulation(self.name)


def key_of(place: BranchPlace) -> int:
    """What tells a module from all others that live, whatever names lead to it."""
    return id(place.bearer())


def take_off(module: nn.Module, name: str) -> None:
    """Takes off the ranks that a copy of a module came with: its own are all there."""
    place = place_beside(module, name)
    if isinstance(place, BranchPlace):
        branch, copies = place.branch, RankCopies(threads=1)
        own = resized(branch, branch.factors(), branch.base_rank, branch.base_rank, copies)
        copies.run()
        branch.put(own)
        branch.unmark()


def place_beside(module: nn.Module, name: str) -> BranchPlace | str:
    """The place beside a linear module, or why there is none. That its weight cannot be fused into is for the caller to
    know."""
    rows, cols = int(module.out_features), int(module.in_features)  # type: ignore[arg-type]
    if svdquant.is_one(module):
        obstacle = svdquant.obstacle(module, rows, cols)
        return obstacle or BranchPlace(name, SVDQUANT, rows, cols, weakref.ref(module))
    kind = AWQ if awq.is_one(module) else SIDE_BRANCH
    return BranchPlace(name, kind, rows, cols, weakref.ref(module))
