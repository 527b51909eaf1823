"""One composition replacing another: plan, apply, report. The caller holds the model's lock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from . import composed_mark, log
from .adapter import Adapter
from .base_names import parameter_names
from .change import Change
from .errors import ModelError
from .forced import forget_written
from .geometry import Geometry, Occupied
from .held import Held
from .model_index import ModelIndex
from .model_state import Composition, ModelState, claimed, threads
from .pending import Pending
from .plan import Plan
from .planner import make_plan
from .report import Report
from .site import Manner
from .targets.branch_place import key_of
from .targets.held_branch import HeldBranch, require_unchanged, within_reach
from .tensor_source import FileTensors
from .transaction import Former, Transaction
from .whereabouts import Whereabouts, regions


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked to be composed, and how."""

    fresh: Composition
    function: str = "compose"
    opened: Sequence[Adapter] = ()  # for this request
    non_blocking: bool = False
    force: bool = False  # also where weights are out of reach or somebody else wrote to them


def recompose(root: nn.Module, state: ModelState, request: Request, stages: dict[str, float]) -> Report:
    """Plans and applies the request over the state's composition, which it replaces. The caller holds the lock and has
    settled the state."""
    previous, fresh, function = state.composition, request.fresh, request.function
    entries = [(adapter, strength * fresh.multiplier) for adapter, strength in fresh.entries]
    begin = time.perf_counter()
    weights = state.weights(root)
    if state.original is not weights.index:
        composed_mark.require_original(function, root)
        state.original = weights.index
    stages["index"] = time.perf_counter() - begin
    begin = time.perf_counter()
    found = Whereabouts(previous.held.values(), weights)
    if request.force:
        forget_written(found, threads())
    else:
        found.require_all(function)
        require_unchanged(function, previous.branches.values())
    branches = within_reach(previous.branches)
    for key in previous.branches.keys() - branches.keys():  # by force only: what became of them is the modules' own
        previous.branches[key].becomes_base()
    if fresh.base is not None:
        fresh.base.learn_names(parameter_names(weights.index))
    plan = make_plan(weights, entries, fresh.component, wishes=fresh.wishes)
    plan.raise_if_unfit(fresh.strict, function)
    log.costly_branches(plan.branches)
    weights_of_plan = [weight.geometry for weight in plan.weights.values()]
    modules = {key_of(branch.geometry) for branch in plan.branches}
    with claimed(root, weights_of_plan, modules, lambda *taken: _refuse_crossing(plan, previous, *taken)):
        stages["plan"] = time.perf_counter() - begin
        change, pending = _carry_out(root, state, request, plan, found.within_reach(), branches)
    report = make_report(plan, weights.index, request.opened, stages)
    report.bytes_read += change.read_nbytes
    report.weights = len(plan.weights) + len(plan.branches)
    on_host = [geometry for geometry in weights_of_plan if geometry.device.type == "cpu"]
    report.written = [(geometry.address, geometry.end) for geometry in on_host]
    report.pending = pending
    change.tell(report)
    return report


def _carry_out(
    root: nn.Module,
    state: ModelState,
    request: Request,
    plan: Plan,
    weights: Mapping[int, Held],
    branches: Mapping[int, HeldBranch],
) -> tuple[Change, Pending | None]:
    previous, fresh, function = state.composition, request.fresh, request.function
    fresh.adapters = [entry.adapter for entry in plan.entries]
    fresh.store = previous.store.of(fresh.adapters)
    for adapter in fresh.adapters:
        fresh.store.hold(adapter)
    fast = fresh.numerics == "fast"
    manner = Manner(function, threads(), fast, fresh.restore, fresh.retain, fresh.base, request.force)
    former = Former(weights, branches, previous.adapters, previous.store)
    transaction = Transaction(plan, former, fresh.store, manner)
    change = Change(root, state, fresh, transaction)
    if request.non_blocking and transaction.is_asynchronous:
        return change, change.begin()
    change.carry_out()
    return change, None


def make_report(
    plan: Plan,
    index: ModelIndex,
    opened: Iterable[Adapter],
    stages: dict[str, float],
) -> Report:
    """The report of a plan; ``opened`` are the adapters opened for it."""
    fresh = [adapter for adapter in opened if isinstance(adapter.source, FileTensors)]
    return Report(
        plan.entries,
        index.module_names,
        bytes_read=sum(adapter.opening_nbytes for adapter in opened)
        + sum(adapter.take_alphas_nbytes() for adapter in {entry.adapter for entry in plan.entries}),
        files_opened=len([adapter for adapter in opened if adapter.path]),
        headers_parsed=len(fresh),
        keys_classified=sum(len(adapter) for adapter in opened),
        stages=stages,
    )


def _refuse_crossing(plan: Plan, previous: Composition, taken: list[Geometry], modules: set[int]) -> None:
    """Raises ModelError where a planned weight shares bytes with one that is fused into under another form, or through
    another model object (``taken``): neither could be undone on its own. So with branches of ``modules``."""
    for branch in plan.branches:
        if key_of(branch.geometry) in modules:
            raise ModelError(
                f"[compose] the branch of module '{branch.geometry.name}' has adapters in it through another model "
                "object that shares it; reset that one first, or compose through it"
            )
    mine = Occupied(regions(previous.held.values()))
    theirs = Occupied(taken)
    for weight in plan.weights.values():
        planned = weight.geometry
        for held in mine.crossing(planned):
            if not planned.same_form(held):
                raise ModelError(
                    f"[compose] weight '{planned.path}' shares bytes with '{held.path}', which is fused "
                    "into as another shape; reset first"
                )
        for _ in theirs.crossing(planned):
            raise ModelError(
                f"[compose] weight '{planned.path}' is fused into through another model object that shares it; "
                "reset that one first, or compose through it"
            )
