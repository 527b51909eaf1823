"""One step of a pipeline from what its modules hold to what they shall hold: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ..adapter import Adapter
from ..interrupts import HeldInterrupts
from ..leases import give_back
from ..model_state import Composition
from ..plan import Plan, raise_if_homeless
from ..planner import make_plan
from ..recompose import Request, recompose
from ..report import Report
from ..targets.branch_plan import wishes_of
from .named_adapters import Entry, named_adapters
from .offloading import require_present
from .parts import Part


@dataclass(frozen=True, slots=True)
class PartStep:
    """What a part shall hold: adapters under names, after those that were composed without one. ``retain`` says where
    factors are kept from then on, None where they were before."""

    part: Part
    named: list[tuple[str, Entry]]
    nameless: Sequence[Entry] = ()
    retain: str | None = None

    @property
    def entries(self) -> list[Entry]:
        return [*self.nameless, *(entry for _, entry in self.named)]


@contextmanager
def locked(parts: Sequence[Part]) -> Iterator[None]:
    """Nobody else changes these modules inside; what GPUs were still doing for them is done."""
    with ExitStack() as stack:
        for state in sorted({id(part.state): part.state for part in parts}.values(), key=id):
            stack.enter_context(state.lock)
        for part in parts:
            part.state.settle()
        yield


def plan_all(function: str, steps: Sequence[PartStep], strict: bool = False) -> list[Plan]:
    """Plans every step, which changes nothing. Raises for adapters that do not fit, with ``strict`` also for keys that
    no part has a place for, and ModelError for weights that are not there. The caller holds the locks."""
    plans = []
    for step in steps:
        _require_present(function, step)
        weights = step.part.state.weights(step.part.module)
        plans.append(make_plan(weights, step.entries, step.part.component, wishes=wishes_of(function)))
    for plan in plans:
        plan.raise_if_unfit(False, function)
    if strict:
        raise_if_homeless(plans, function)
    return plans


def carry_out(
    function: str, steps: Sequence[PartStep], opened: Sequence[Adapter] = (), then: Callable[[], None] | None = None
) -> dict[str, Report]:
    """Takes every step, and tells the modules' names of it. After an error, or Ctrl-C in between, every part holds the
    bytes it held before. ``then`` is called once all is done, before a late Ctrl-C is let through. The caller holds the
    locks. ``opened`` were opened for this."""
    done: list[tuple[PartStep, Composition]] = []
    reports = {}
    for step in steps:
        _require_present(function, step)
    with HeldInterrupts() as interrupts:
        try:
            for step in steps:
                previous = step.part.state.composition
                reports[step.part.name] = _compose(function, step, opened if not done else ())
                done.append((step, previous))
                interrupts.check()
        except BaseException:
            for step, previous in reversed(done):
                _go_back(function, step.part, previous)
            raise
        for step, _ in done:
            named_adapters(step.part.module).place(step.named)
            _let_go(step.part.state.composition)
        if then is not None:
            then()
    return reports


def _compose(function: str, step: PartStep, opened: Sequence[Adapter]) -> Report:
    state = step.part.state
    former = state.composition.owned  # kept until it is certain that nobody goes back
    retain = step.retain or named_adapters(step.part.module).retain
    component, wishes = step.part.component, wishes_of(function)
    fresh = Composition(step.entries, list(former), retain=retain, component=component, wishes=wishes)
    return recompose(step.part.module, state, Request(fresh, function, opened), {})


def _go_back(function: str, part: Part, previous: Composition) -> None:
    """The bytes of before: a composition's bytes depend on nothing but what is in it."""
    state = part.state
    state.composition.store.take_over(previous.store)
    recompose(part.module, state, Request(previous.asked(previous.entries, previous.multiplier), function), {})


def _let_go(composition: Composition) -> None:
    """Of adapters that only the composition before had."""
    used = {adapter for adapter, _ in composition.entries}
    unused = [lease for lease in composition.owned if lease.adapter not in used]
    composition.owned = [lease for lease in composition.owned if lease.adapter in used]
    give_back(unused)


def _require_present(function: str, step: PartStep) -> None:
    composition = step.part.state.composition
    if step.named or composition.held or composition.branches:
        require_present(function, step.part.name, step.part.module)
