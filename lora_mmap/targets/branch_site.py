"""A transaction's branches of quantised modules: ranks appended, rewritten, or taken off."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from .. import fault_points
from ..factor_store import FactorStore
from ..factor_stream import Window
from ..geometry import Geometry
from ..held import Held
from ..outcomes import EntryPlan
from ..overflow import require_finite
from ..plan import Plan
from ..site import Manner, Site
from ..staging import HostStream
from .branch import Branch
from .branch_plan import BranchPlan
from .factor_jobs import FactorJobs
from .held_branch import HeldBranch, key_of
from .side_branch import PlainBranch

# Modules that are made pristine between two looks at Ctrl-C.
_AT_ONCE = 64


class _Before:
    """What a branch held: our ranks' bytes, if it had any."""

    def __init__(self, held: HeldBranch, branch: Branch) -> None:
        self.held = held
        self.branch = branch
        self.tails = tuple(tail.clone() for tail in branch.tails(held.base)) if held.capacity else ()

    @property
    def nbytes(self) -> int:
        return sum(tail.nbytes for tail in self.tails)

    def come_back(self) -> None:
        held, branch = self.held, self.branch
        if branch.ranks != held.base + held.capacity:
            _resize(branch, held, held.capacity)
        for tail, saved in zip(branch.tails(held.base), self.tails, strict=bool(self.tails)):
            tail.copy_(saved)
        if held.capacity:
            branch.mark(held.base)
        else:
            branch.unmark()


def _resize(branch: Branch, held: HeldBranch, capacity: int) -> None:
    if not capacity and held.originals is not None:
        branch.put(*held.originals)
    else:
        branch.resize(held.base, held.base + capacity)


class BranchSite(Site):
    """``old`` is what branches hold, by module. While something is composed, what nothing is put into any more keeps
    its ranks as zeros: pointers stay. Works on torch's current stream, and has done everything when it returns."""

    def __init__(self, plan: Plan, old: dict[int, HeldBranch], store: FactorStore, manner: Manner) -> None:
        self._entries = entries = plan.entries
        self._svd_rank = plan.wishes.svd_rank
        self._old = old
        self._planned = {key_of(branch.geometry) for branch in plan.branches}
        self._manner = manner
        self._stream: HostStream[BranchPlan] = HostStream(
            entries, plan.branches, manner.threads, store, keeps=manner.keeps_factors
        )
        self._new: dict[int, HeldBranch] = {}
        self._before: list[_Before] = []
        self._saved_nbytes = 0
        self._restore_seconds = 0.0

    @property
    def windows(self) -> list[Window[BranchPlan]]:
        return self._stream.windows

    def check_unchanged(self) -> None:
        self._stream.check_unchanged()

    def fuse(self, window: Window[BranchPlan]) -> None:
        fault_points.reach("read")
        self._stream.load(window)
        with self._stream.stage("save"):
            fault_points.reach("save")
            helds = [self._prepare(plan) for plan in window.weights]
        with self._stream.stage("fuse"):
            fault_points.reach("fuse")
            jobs = FactorJobs(self._entries, self._stream, self._svd_rank)
            for plan, held in zip(window.weights, helds, strict=True):
                jobs.add(plan, held)
            overflowed = jobs.run(self._manner.threads)
            require_finite(self._manner.function, self._entries, overflowed)
            fault_points.reach("keep")

    def seal(self) -> None:
        self._stream.seal()

    def restore(self, undoable: bool) -> Iterator[None]:
        begin = time.perf_counter()
        left = [(key, held) for key, held in self._old.items() if key not in self._planned]
        for first in range(0, len(left), _AT_ONCE):
            fault_points.reach("restore")
            for key, held in left[first : first + _AT_ONCE]:
                self._clear(key, held)
            yield
        self._restore_seconds += time.perf_counter() - begin

    @property
    def is_asynchronous(self) -> bool:
        return False

    def is_done(self) -> bool:
        return True

    def finish(self) -> list[Geometry]:
        return []

    def roll_back(self) -> None:
        """Every change taken back, the last one first. New tensors are made where there were fewer ranks or more."""
        while self._before:
            self._before[-1].come_back()
            self._before.pop()

    def kept(self) -> dict[int, Held]:
        return {}

    def kept_branches(self) -> dict[int, HeldBranch]:
        """What branches hold now, by module."""
        return self._new

    def settle(self) -> None:
        self._before.clear()

    @property
    def seconds(self) -> dict[str, float]:
        return {**self._stream.seconds, "restore": self._restore_seconds}

    def memory(self) -> dict[str, int]:
        return {**self._stream.memory, "transient": self._saved_nbytes}

    def _prepare(self, plan: BranchPlan) -> HeldBranch:
        """Has room for the plan's ranks; all of ours are still what they were, or zero."""
        place = plan.geometry
        held = self._old.get(key_of(place))
        branch = place.branch
        if held is None:
            if isinstance(branch, PlainBranch):
                branch.unknown = _float_of(plan, self._entries)
            originals = branch.tensors() if self._manner.restore == "backup" else None
            held = HeldBranch(place, branch.ranks, 0, 0, branch.dtype, originals=originals)
        self._keep(held, branch)
        if plan.needed > held.capacity:
            _resize(branch, held, plan.needed)
        branch.mark(held.base)
        capacity = max(plan.needed, held.capacity)
        now = self._new[key_of(place)] = replace(held, capacity=capacity, used=plan.needed, retained={})
        return now

    def _clear(self, key: int, held: HeldBranch) -> None:
        branch = held.branch
        if branch is None:
            return
        self._keep(held, branch)
        if self._entries:
            for tail in branch.tails(held.base):
                tail.zero_()
            self._new[key] = replace(held, used=0, retained={})
        else:
            _resize(branch, held, 0)
            branch.unmark()

    def _keep(self, held: HeldBranch, branch: Branch) -> None:
        before = _Before(held, branch)
        self._saved_nbytes += before.nbytes
        self._before.append(before)


def _float_of(plan: BranchPlan, entries: Sequence[EntryPlan]) -> torch.dtype:
    """The first factor's dtype, if a branch may have it."""
    term = plan.terms[0]
    name = entries[term.entry].adapter.source.dtypes[term.formula.tensors[0]]
    return {"F16": torch.float16, "F32": torch.float32}.get(name, torch.bfloat16)
