"""The public face: put adapters into a model's weights, take them out again, say what would happen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import get_args

from torch import nn

from .adapter import Adapter
from .change import close_all
from .entries import AnySource, Entries, finite_strength, open_entries
from .errors import ArgumentError
from .families.prefixes import components
from .interrupts import HeldInterrupts
from .model_state import Composition, state_of, threads, unwrap
from .planner import make_plan
from .recompose import Request, make_report, recompose
from .report import Report
from .restore import TIERS, put_back, require_in_place
from .transaction import Numerics


def compose(
    model: nn.Module,
    adapters: Entries,
    *,
    strict: bool = False,
    restore: str = "auto",
    component: str | None = None,
    numerics: Numerics = "ordered",
    non_blocking: bool = False,
) -> Report:
    """Fuses adapters into the model's weights in place: ``W = W0 + sum of strength * alpha / rank * B @ A``.

    ``W0`` is always the pristine weight: a composition replaces the one before it, never adds to it. fp32 accumulation
    in the order of ``adapters`` and rank, one rounding to the weight's dtype (float64 weights: float64 throughout).
    Storage, pointer, shape, strides, dtype and ``requires_grad`` of every parameter stay.

    Args:
        model: any ``nn.Module`` with float16, bfloat16, float32 or float64 weights, on the CPU, on CUDA devices, or on
            several of them.
        adapters: ``(source, strength)`` or ``(source, strength, anything)``; a source is whatever
            :func:`open_adapter` takes, or an open :class:`Adapter` (which stays open).
            ``|strength| < 1e-5`` is skipped.
        strict: raise when some key of an adapter finds no home in the model.
        restore: ``"auto"`` and ``"backup"`` keep a copy of what is touched, for :func:`reset`; ``"none"`` commits and
            forgets: the fused weights are the new pristine ones.
        component: which component of a pipeline the model is (``"denoiser"``, ``"text_encoder"``,
            ``"text_encoder_2"``, ``"text_encoder_3"``); needed only where names and shapes do not tell.
        numerics: ``"ordered"`` gives the same bits on every device. ``"fast"`` lets GPUs use their tensor cores where
            both factors are float16 or both bfloat16: exact products, fp32 sums in the hardware's order.
        non_blocking: return as soon as the files have been read and the GPUs have been told what to do, in order with
            the current stream of each. The report is then pending: an overflow is found, put back and raised by
            ``report.wait()`` or the next call that concerns the model.

    Returns:
        A :class:`Report`, false when nothing was applied.

    Raises:
        ArgumentError, AdapterError and its kinds (HeaderError, ReadError, UnmatchedKeysError, AmbiguousKeyError),
        ModelError, FusionOverflowError, CudaError, OSError. After any of them every weight holds the bytes it held
        before.
    """
    root = unwrap("compose", model)
    _require_one_of("compose", "restore", restore, TIERS)
    _require_one_of("compose", "numerics", numerics, get_args(Numerics))
    if component is not None:
        _require_one_of("compose", "component", component, components())
    begin = time.perf_counter()
    state = state_of(root)
    fresh = Composition(restore=restore, strict=strict, component=component, numerics=numerics)
    try:
        fresh.entries = open_entries("compose", adapters, fresh.owned)
        stages = {"open": time.perf_counter() - begin}
        with state.lock:
            request = Request(fresh, fresh.owned, fresh.entries, numerics, non_blocking)
            return recompose(root, state, request, stages)
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
        state.settle()
        composition = state.composition
        if not composition.pristine and not composition.entries:
            return False
        current = state.weights(root).by_address(composition.pristine)
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
        state.settle()
        composition = state.composition
        if not composition.entries:
            return None
        scaled = [(adapter, base * strength) for adapter, base in composition.entries]
        return recompose(root, state, Request(composition, [], scaled, composition.numerics), {})


def _require_one_of(function: str, name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ArgumentError(f"[{function}] {name} is {value!r}, expected one of {', '.join(map(repr, known))}")


__all__ = ["AnySource", "Entries", "check", "compose", "reset", "set_multiplier"]
