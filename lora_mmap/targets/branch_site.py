"""A transaction's branches of quantised modules: ranks appended, rewritten, or taken off."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from .. import fault_points
from ..factor_store import FactorStore
from ..factor_stream import Window
from ..held import Held
from ..outcomes import EntryPlan
from ..overflow import require_finite
from ..plan import Plan
from ..site import Manner, SynchronousSite
from ..staging import HostStream
from .branch import Branch, Factors
from .branch_place import key_of
from .branch_plan import BranchPlan
from .factor_jobs import FactorJobs
from .held_branch import HeldBranch
from .rank_copies import RankCopies, resized, saved, whole
from .side_branch import PlainBranch

# Modules that are made pristine between two looks at Ctrl-C.
_AT_ONCE = 64


@dataclass(slots=True)
class _Step:
    """A branch's way from what it holds to what it shall hold. ``tails`` are what our ranks held, if there were any."""

    branch: Branch
    old: HeldBranch
    new: HeldBranch
    factors: Factors
    tails: Factors | None = None


class BranchSite(SynchronousSite):
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
        self._steps: list[_Step] = []
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
            steps = [self._step(plan) for plan in window.weights]
            self._save(steps)
        with self._stream.stage("fuse"):
            fault_points.reach("fuse")
            self._have_room(steps)
            jobs = FactorJobs(self._entries, self._stream, self._svd_rank)
            for plan, step in zip(window.weights, steps, strict=True):
                jobs.add(plan, step.new, step.branch, step.factors)
                self._new[key_of(plan.geometry)] = step.new
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
            self._clear(left[first : first + _AT_ONCE])
            yield
        self._restore_seconds += time.perf_counter() - begin

    def roll_back(self) -> None:
        """Every step taken back, the last one first. New tensors are made where there were fewer ranks or more."""
        while self._steps:
            self._come_back(self._steps[-1])
            self._steps.pop()

    def kept(self) -> dict[int, Held]:
        return {}

    def kept_branches(self) -> dict[int, HeldBranch]:
        """What branches hold now, by module."""
        return self._new

    def settle(self) -> None:
        self._steps.clear()

    @property
    def seconds(self) -> dict[str, float]:
        return {**self._stream.seconds, "restore": self._restore_seconds}

    def memory(self) -> dict[str, int]:
        return {**self._stream.memory, "transient": self._saved_nbytes}

    def _step(self, plan: BranchPlan) -> _Step:
        place = plan.geometry
        branch = place.branch
        held = self._old.get(key_of(place))
        if held is None and isinstance(branch, PlainBranch):
            branch.unknown = _float_of(plan, self._entries)
        factors = branch.factors() if held is None else branch.writable_factors()
        if held is None:
            originals = factors if self._manner.restore == "backup" else None
            held = HeldBranch(place, branch.ranks_in(factors.down), 0, 0, factors.down.dtype, originals=originals)
        new = replace(held, capacity=max(plan.needed, held.capacity), used=plan.needed, names=plan.names, retained={})
        return _Step(branch, held, new, factors)

    def _save(self, steps: Sequence[_Step]) -> None:
        """Has what our ranks hold in memory, so that each step can be taken back from now on."""
        copies = RankCopies(self._manner.threads)
        for step in steps:
            if step.old.capacity:
                step.tails = saved(step.branch, step.factors, step.old.base, copies)
        copies.run()
        self._steps += steps
        self._saved_nbytes += sum(tail.nbytes for step in steps for tail in step.tails or ())

    def _have_room(self, steps: Sequence[_Step]) -> None:
        """Gives the branches as many ranks as they shall have; those that are new hold anything."""
        growing = [step for step in steps if step.new.capacity != step.old.capacity]
        copies = RankCopies(self._manner.threads)
        for step in growing:
            step.factors = self._factors_of(step, step.new, copies)
        copies.run()
        for step in growing:
            step.branch.put(step.factors)
        for step in steps:
            _mark(step.branch, step.new)

    def _factors_of(self, step: _Step, held: HeldBranch, copies: RankCopies) -> Factors:
        """New factors for what a branch shall hold, or the very ones it had before us."""
        factors, originals = step.branch.factors(), held.originals
        if not held.capacity and originals is not None and originals.down.device == factors.down.device:
            return originals
        return resized(step.branch, factors, held.base, held.base + held.capacity, copies)

    def _clear(self, some: Sequence[tuple[int, HeldBranch]]) -> None:
        """Branches that nothing is put into: zeros while something is composed, or as they were before us."""
        steps = []
        for key, held in some:
            branch = held.branch
            if branch is not None:
                new = replace(held, capacity=held.capacity if self._entries else 0, used=0, retained={})
                steps.append(_Step(branch, held, new, branch.writable_factors()))
                self._new.update({key: new} if new.capacity else {})
        self._save(steps)
        if not self._entries:
            self._have_room(steps)
            return
        jobs = FactorJobs(self._entries, self._stream, self._svd_rank)
        for step in steps:
            jobs.clear(step.new, step.branch, step.factors)
        jobs.run(self._manner.threads)

    def _come_back(self, step: _Step) -> None:
        branch, old = step.branch, step.old
        copies = RankCopies(self._manner.threads)
        factors = branch.writable_factors() if old.capacity else branch.factors()
        if branch.ranks_in(factors.down) != old.base + old.capacity:
            factors = self._factors_of(step, old, copies)
        for factor, tail in zip(factors, step.tails or (), strict=False):
            copies.add(factor, branch.extent(factor, old.base, old.base + old.capacity), tail, whole(tail))
        copies.run()
        if factors.down is not branch.factors().down:
            branch.put(factors)
        _mark(branch, old)


def _mark(branch: Branch, held: HeldBranch) -> None:
    if held.capacity:
        branch.mark(held.base)
    else:
        branch.unmark()


def _float_of(plan: BranchPlan, entries: Sequence[EntryPlan]) -> torch.dtype:
    """The first factor's dtype, if a branch may have it."""
    term = plan.terms[0]
    name = entries[term.entry].adapter.source.dtypes[term.formula.tensors[0]]
    return {"F16": torch.float16, "F32": torch.float32}.get(name, torch.bfloat16)
