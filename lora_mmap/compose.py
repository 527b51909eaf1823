"""The public face: put adapters into a model's weights, take them out again, say what would happen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from torch import nn

from . import log
from .adapter import Adapter
from .entries import AnySource, Entries, finite_strength, open_entries
from .errors import ArgumentError, ModelError
from .families.prefixes import components
from .geometry import Occupied
from .interrupts import HeldInterrupts
from .model_index import ModelIndex
from .model_state import Composition, ModelState, other_compositions, state_of, threads, unwrap
from .plan import Plan, make_plan
from .report import Report
from .restore import TIERS, Saved, put_back, require_in_place
from .tensor_source import FileTensors, MemoryTensors
from .transaction import apply


def compose(
    model: nn.Module,
    adapters: Entries,
    *,
    strict: bool = False,
    restore: str = "auto",
    component: str | None = None,
) -> Report:
    """Fuses adapters into the model's weights in place: ``W = W0 + sum of strength * alpha / rank * B @ A``.

    ``W0`` is always the pristine weight: a composition replaces the one before it, never adds to it. fp32 accumulation
    in the order of ``adapters`` and rank, one rounding to the weight's dtype (float64 weights: float64 throughout).
    Storage, pointer, shape, strides, dtype and ``requires_grad`` of every parameter stay.

    Args:
        model: any ``nn.Module`` on the CPU with float16, bfloat16, float32 or float64 weights.
        adapters: ``(source, strength)`` or ``(source, strength, anything)``; a source is whatever
            :func:`open_adapter` takes, or an open :class:`Adapter` (which stays open).
            ``|strength| < 1e-5`` is skipped.
        strict: raise when some key of an adapter finds no home in the model.
        restore: ``"auto"`` and ``"backup"`` keep a copy of what is touched, for :func:`reset`; ``"none"`` commits and
            forgets: the fused weights are the new pristine ones.
        component: which component of a pipeline the model is (``"denoiser"``, ``"text_encoder"``,
            ``"text_encoder_2"``, ``"text_encoder_3"``); needed only where names and shapes do not tell.

    Returns:
        A :class:`Report`, false when nothing was applied.

    Raises:
        ArgumentError, AdapterError and its kinds (HeaderError, ReadError, UnmatchedKeysError, AmbiguousKeyError),
        ModelError, FusionOverflowError, OSError. After any of them every weight holds the bytes it held before.
    """
    root = unwrap("compose", model)
    if restore not in TIERS:
        raise ArgumentError(f"[compose] restore is {restore!r}, expected one of {', '.join(map(repr, TIERS))}")
    if component is not None and component not in (known := components()):
        raise ArgumentError(f"[compose] component is {component!r}, expected one of {', '.join(map(repr, known))}")
    begin = time.perf_counter()
    state = state_of(root)
    fresh = Composition(restore=restore, strict=strict, component=component)
    try:
        fresh.entries = open_entries("compose", adapters, fresh.owned)
        stages = {"open": time.perf_counter() - begin}
        with state.lock:
            return _recompose(root, state, fresh, fresh.owned, stages)
    finally:
        if state.composition is not fresh:
            _close_all(fresh.owned)


def reset(model: nn.Module, *, force: bool = False) -> bool:
    """Takes the composition out: every weight is byte-identical to what it was before.

    Returns True when there was something to undo. Raises ModelError, and changes nothing, when a weight was moved,
    converted or replaced since it was fused into; with ``force=True`` such weights are forgotten as they are and the
    others restored.
    """
    root = unwrap("reset", model)
    state = state_of(root)
    with state.lock:
        composition = state.composition
        if not composition.pristine and not composition.entries:
            return False
        current = state.weights(root).by_address()
        if not force:
            require_in_place("reset", composition.pristine.values(), current)
        reachable = [saved for saved in composition.pristine.values() if saved.geometry.address in current]
        with HeldInterrupts():
            put_back(reachable, threads())
            state.composition = Composition()
        _close_all(composition.owned)
        return bool(reachable)


def check(
    model: nn.Module,
    adapters: AnySource | Entries,
    *,
    strict: bool = False,
    component: str | None = None,
) -> Report:
    """What :func:`compose` would do, touching nothing: one adapter, or a list of ``(source, strength)``.

    Pairs that do not fit are in the report, not raised; with ``strict=True`` raises as ``compose`` would.
    """
    root = unwrap("check", model)
    listed: Entries = adapters if isinstance(adapters, (list, tuple)) else [(adapters, 1.0)]  # type: ignore[list-item]
    opened: list[Adapter] = []
    try:
        begin = time.perf_counter()
        entries = open_entries("check", listed, opened)
        stages = {"open": time.perf_counter() - begin}
        state = state_of(root)
        with state.lock:
            weights = state.weights(root)
            plan = make_plan(weights, entries, component)
        if strict:
            plan.raise_if_unfit(strict)
        report = _report(plan, weights.index, opened, stages)
        report.dry_run = True
        return report
    finally:
        _close_all(opened)


def set_multiplier(model: nn.Module, multiplier: float) -> Report | None:
    """Recomposes what is composed with every strength multiplied; None where nothing was composed.

    Opens, parses and classifies nothing: factors are read again from the files that are still open.
    """
    root = unwrap("set_lora_strength_v2", model)
    strength = finite_strength("set_lora_strength_v2", multiplier, "strength")
    state = state_of(root)
    with state.lock:
        composition = state.composition
        if not composition.entries:
            return None
        scaled = [(adapter, base * strength) for adapter, base in composition.entries]
        return _recompose(root, state, composition, [], {}, scaled)


def _recompose(
    root: nn.Module,
    state: ModelState,
    fresh: Composition,
    opened: list[Adapter],
    stages: dict[str, float],
    scaled: list[tuple[Adapter, float]] | None = None,
) -> Report:
    """Plans and applies ``fresh`` over the state's composition, which it replaces. The caller holds the lock."""
    previous = state.composition
    before = {id(adapter): _bytes_read(adapter) for adapter, _ in fresh.entries if adapter not in opened}
    begin = time.perf_counter()
    weights = state.weights(root)
    require_in_place("compose", previous.pristine.values(), weights.by_address() if previous.pristine else {})
    plan = make_plan(weights, scaled or fresh.entries, fresh.component)
    plan.raise_if_unfit(fresh.strict)
    _refuse_crossing(plan, previous, other_compositions(root))
    stages["plan"] = time.perf_counter() - begin

    def commit(pristine: dict[int, Saved]) -> None:
        fresh.pristine = pristine
        state.composition = fresh if fresh.restore != "none" else Composition()

    measured = apply(plan, previous.pristine, fresh.restore != "none", threads(), commit)
    if previous is not fresh:
        _close_all(previous.owned)
    report = _report(plan, weights.index, opened, {**stages, **measured.seconds}, before)
    report.restore = _restore_cost(state.composition)
    report.memory = {
        "staging": measured.staging_nbytes,
        "transient": measured.transient_nbytes,
        "restore": state.composition.nbytes,
        "retained": sum(_retained(adapter) for adapter, _ in state.composition.entries),
        "file_backed": 0,
    }
    log.report(report)
    return report


def _report(
    plan: Plan,
    index: ModelIndex,
    opened: Iterable[Adapter],
    stages: dict[str, float],
    before: Mapping[int, int] | None = None,
) -> Report:
    fresh = [adapter for adapter in opened if isinstance(adapter.source, FileTensors)]
    adapters = {id(entry.adapter): entry.adapter for entry in plan.entries}
    return Report(
        plan,
        [weight.name for weight in index.weights],
        bytes_read=sum(_bytes_read(adapter) - (before or {}).get(key, 0) for key, adapter in adapters.items()),
        files_opened=len([adapter for adapter in opened if adapter.path]),
        headers_parsed=len(fresh),
        keys_classified=sum(len(adapter) for adapter in opened),
        stages=stages,
    )


def _refuse_crossing(plan: Plan, previous: Composition, others: list[Composition]) -> None:
    """Raises ModelError where a planned weight shares bytes with one that is fused into under another form, or through
    another model object: neither could be undone on its own."""
    mine = Occupied([saved.geometry for saved in previous.pristine.values()])
    theirs = Occupied([saved.geometry for other in others for saved in other.pristine.values()])
    for weight in plan.weights.values():
        planned = weight.geometry
        for held in mine.crossing(planned):
            if not planned.same_form(held):
                raise ModelError(
                    f"[compose] weight '{planned.name}.weight' shares bytes with '{held.name}.weight', which is fused "
                    "into as another shape; reset first"
                )
        for _ in theirs.crossing(planned):
            raise ModelError(
                f"[compose] weight '{planned.name}.weight' is fused into through another model object that shares it; "
                "reset that one first, or compose through it"
            )


def _restore_cost(composition: Composition) -> dict[str, dict[str, int]]:
    if not composition.pristine:
        return {}
    return {"backup": {"modules": len(composition.pristine), "bytes": composition.nbytes}}


def _bytes_read(adapter: Adapter) -> int:
    if isinstance(adapter.source, FileTensors):
        return adapter.source.file.bytes_read
    return adapter.source.file_nbytes


def _retained(adapter: Adapter) -> int:
    return adapter.nbytes if isinstance(adapter.source, MemoryTensors) else 0


def _close_all(adapters: Iterable[Adapter]) -> None:
    for adapter in adapters:
        adapter.close()


__all__ = ["AnySource", "Entries", "check", "compose", "reset", "set_multiplier"]
