"""The public face: put adapters into a model's weights, take them out again, say what would happen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from . import log
from .adapter import Adapter, open_adapter
from .errors import ArgumentError, ModelError
from .geometry import refusal
from .model_index import ModelIndex
from .model_state import Composition, ModelState, other_owner, state_of, threads, unwrap
from .plan import NEGLIGIBLE, Plan, make_plan
from .report import Report
from .restore import TIERS, put_back, require_in_place
from .tensor_source import FileTensors, MemoryTensors
from .transaction import apply, uninterrupted

AdapterSource = str | os.PathLike[str] | Mapping[str, torch.Tensor] | Adapter
Entries = Sequence[tuple[AdapterSource, float] | tuple[AdapterSource, float, Any]]


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
    begin = time.perf_counter()
    with ExitStack() as on_failure:
        opened: list[Adapter] = []
        on_failure.callback(_close_all, opened)
        entries = _open_entries("compose", adapters, opened)
        seconds = time.perf_counter() - begin
        state = state_of(root)
        with state.lock:
            fresh = Composition(entries, opened, {}, restore, strict, component)
            report = _recompose(root, state, fresh, opened, {"open": seconds})
        on_failure.pop_all()
    return report


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
        current = _addresses(state.index(root))
        if not force:
            require_in_place("reset", composition.pristine.values(), current)
        reachable = [saved for saved in composition.pristine.values() if saved.geometry.address in current]
        with uninterrupted():
            put_back(reachable, threads())
            state.composition = Composition()
        _close_all(composition.owned)
        return bool(reachable)


def check(
    model: nn.Module,
    adapters: AdapterSource | Entries,
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
        entries = _open_entries("check", listed, opened)
        stages = {"open": time.perf_counter() - begin}
        state = state_of(root)
        with state.lock:
            index = state.index(root)
            plan = make_plan(index, entries, component)
        if strict:
            plan.raise_if_unfit(strict)
        report = _report(plan, index, opened, stages)
        report.dry_run = True
        return report
    finally:
        _close_all(opened)


def set_multiplier(model: nn.Module, multiplier: float) -> Report | None:
    """Recomposes what is composed with every strength multiplied; None where nothing was composed.

    Opens, parses and classifies nothing: factors are read again from the files that are still open.
    """
    root = unwrap("set_lora_strength_v2", model)
    strength = _strength("set_lora_strength_v2", multiplier, "strength")
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
    index = state.index(root)
    require_in_place("compose", previous.pristine.values(), _addresses(index) if previous.pristine else set())
    plan = make_plan(index, scaled or fresh.entries, fresh.component)
    plan.raise_if_unfit(fresh.strict)
    _refuse_shared(root, plan)
    stages["plan"] = time.perf_counter() - begin
    measured = apply(plan, previous, fresh.restore, threads())
    fresh.pristine = previous.pristine
    state.composition = fresh if fresh.restore != "none" else Composition()
    if previous is not fresh:
        _close_all(previous.owned)
    report = _report(plan, index, opened, {**stages, **measured.seconds}, before)
    report.restore = _restore_cost(state.composition)
    report.memory = {
        "staging": measured.staging_nbytes,
        "transient": measured.transient_nbytes,
        "restore": state.composition.nbytes,
        "retained": sum(_retained(adapter) for adapter, _ in state.composition.entries),
        "file_backed": 0,
    }
    log.report(report)
    if fresh.restore == "none":
        _close_all(fresh.owned)
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


def _open_entries(function: str, adapters: Entries, opened: list[Adapter]) -> list[tuple[Adapter, float]]:
    """Opens every distinct source once; ``opened`` receives those that we have to close."""
    if isinstance(adapters, (str, bytes, os.PathLike, Mapping)) or not isinstance(adapters, Iterable):
        raise ArgumentError(
            f"[{function}] adapters is a {type(adapters).__name__}, expected a list of (source, strength)"
        )
    known: dict[object, Adapter] = {}
    entries = []
    for position, entry in enumerate(adapters):
        if not isinstance(entry, (tuple, list)) or not 2 <= len(entry) <= 3:
            raise ArgumentError(f"[{function}] adapters[{position}] is {entry!r:.80}, expected (source, strength)")
        source = entry[0]
        strength = _strength(function, entry[1], f"adapters[{position}] strength")
        if abs(strength) < NEGLIGIBLE:
            log.skipped(source, strength)
            continue
        if isinstance(source, Adapter):
            source.require_open(function)
            entries.append((source, strength))
            continue
        identity = id(source) if isinstance(source, Mapping) else os.path.realpath(os.fspath(source))
        if identity not in known:
            known[identity] = open_adapter(source)
            opened.append(known[identity])
            log.opened(known[identity])
        entries.append((known[identity], strength))
    return entries


def _strength(function: str, value: object, what: str) -> float:
    try:
        strength = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(f"[{function}] {what} is {value!r}, expected a number") from None
    if not math.isfinite(strength):
        raise ArgumentError(f"[{function}] {what} is {strength}, expected a finite number")
    return strength


def _addresses(index: ModelIndex) -> set[int]:
    """Where the weights of the model lie now."""
    return {entry.weight.data_ptr() for entry in index.weights if refusal(entry) is None and entry.weight is not None}


def _refuse_shared(root: nn.Module, plan: Plan) -> None:
    key = other_owner(root, set(plan.weights))
    if key is not None:
        raise ModelError(
            f"[compose] weight '{plan.weights[key].geometry.name}.weight' is fused into through another model object "
            "that shares it; reset that one first, or compose through it"
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


__all__ = ["AdapterSource", "Entries", "check", "compose", "reset", "set_multiplier"]
