"""The public face: put adapters into a model's weights, take them out again, say what would happen."""

from __future__ import annotations

import time

from torch import nn

from .adapter import Adapter
from .entries import AnySource, Entries, finite_strength, open_entries
from .errors import ArgumentError
from .families.prefixes import components
from .interrupts import HeldInterrupts
from .model_state import Composition, state_of, threads, unwrap
from .planner import make_plan
from .recompose import close_all, make_report, recompose
from .report import Report
from .restore import TIERS, put_back, require_in_place


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
            return recompose(root, state, fresh, fresh.owned, stages)
    finally:
        if state.composition is not fresh:
            close_all(fresh.owned)


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
        close_all(composition.owned)
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
            begin = time.perf_counter()
            weights = state.weights(root)
            stages["index"] = time.perf_counter() - begin
            begin = time.perf_counter()
            plan = make_plan(weights, entries, component, dry_run=True)
            stages["plan"] = time.perf_counter() - begin
        if strict:
            plan.raise_if_unfit(strict)
        report = make_report(plan, weights.index, opened, stages)
        report.dry_run = True
        plan.forget_weights()
        return report
    finally:
        close_all(opened)


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
        return recompose(root, state, composition, [], {}, scaled)


__all__ = ["AnySource", "Entries", "check", "compose", "reset", "set_multiplier"]
