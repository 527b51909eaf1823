"""The public face: put adapters into a model's weights, take them out again, say what would happen."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import get_args

from torch import nn

from . import composed_mark
from .adapter import Adapter
from .base_checkpoint import BaseCheckpoint
from .entries import AnySource, Entries, finite_strength, open_entries, without
from .errors import ArgumentError
from .families.prefixes import components
from .leases import Lease, give_back
from .model_state import Composition, Numerics, state_of, unwrap
from .planner import make_plan
from .recompose import Request, make_report, recompose
from .report import Report
from .restore import TIERS
from .targets.branch_plan import wishes_of

RETENTIONS = ("memory", "file", "device")


def compose(
    model: nn.Module,
    adapters: Entries,
    *,
    strict: bool = False,
    restore: str = "auto",
    base: str | os.PathLike[str] | None = None,
    retain: str | None = None,
    component: str | None = None,
    numerics: Numerics = "ordered",
    non_blocking: bool = False,
    use_cache: bool = False,
    apply_awq_mod: bool | str = "auto",
    svd_rank: int = 0,
) -> Report:
    """Fuses adapters into the model's weights in place: ``W = W0 + sum of strength * alpha / rank * B @ A``.

    ``W0`` is always the pristine weight: a composition replaces the one before it, never adds to it. fp32 accumulation
    in the order of ``adapters`` and rank, one rounding to the weight's dtype (float64 weights: float64 throughout).
    Storage, pointer, shape, strides, dtype and ``requires_grad`` of every parameter stay.

    Args:
        model: any ``nn.Module`` with float16, bfloat16, float32 or float64 weights, on the CPU, on CUDA devices, or on
            several of them. Linear modules with other weights, quantised ones, keep these: factors go into a low-rank
            branch beside them, at its dtype (see :mod:`lora_mmap.targets`).
        adapters: ``(source, strength)`` or ``(source, strength, anything)``; a source is whatever
            :func:`open_adapter` takes, or an open :class:`Adapter` (which stays open).
            ``|strength| < 1e-5`` is skipped.
        strict: raise when some key of an adapter finds no home in the model.
        restore: what :func:`reset` and other compositions get the pristine bytes back from. ``"journal"``: the
            factors, subtracted again, and a list of what rounding lost. ``"file"``: the checkpoint that ``base``
            names, for weights that hold its bytes. ``"backup"``: copies. ``"auto"``: the file where there is one, the
            journal otherwise. What none of them suits is copied: float64 weights, DoRA, (IA)3, set weights, a journal
            that would exceed 60 % of a copy, what ``numerics="fast"`` made. ``"none"`` commits and forgets: the fused
            weights are the new pristine ones. Branches of quantised modules still have their own ranks, and need none
            of it; with ``"backup"`` their very tensors are kept.
        base: a ``.safetensors`` file, or a folder with one or with an index of several, that the model's weights were
            loaded from. Its tensors are compared with the weights; a conversion of dtype on the way is repeated.
        retain: where the factors are kept that undoing and other strengths need: ``"memory"``, at their own dtype, or
            ``"file"``: they are read again, and must hash to what they did, or ``"device"``: those for weights on a GPU
            stay there, as long as it has room, all others in memory. Dicts are always in memory. By default in memory,
            but for ``restore="backup"``.
        component: which component of a pipeline the model is (``"denoiser"``, ``"text_encoder"``,
            ``"text_encoder_2"``, ``"text_encoder_3"``); needed only where names and shapes do not tell.
        numerics: ``"ordered"`` gives the same bits on every device. ``"fast"`` lets GPUs use their tensor cores where
            both factors are float16 or both bfloat16: exact products, fp32 sums in the hardware's order.
        non_blocking: return as soon as the files have been read and the GPUs have been told what to do, in order with
            the current stream of each. The report is then pending: an overflow is found, put back and raised by
            ``report.wait()`` or the next call that concerns the model.
        use_cache: take safetensors files from the cache, and keep them there: what is in it is not opened, parsed and
            classified again, and another strength of what is composed reads nothing (see :func:`lora_cache_info`).
        apply_awq_mod: change the modulation of Nunchaku's Qwen-Image too, where AWQ quantised it; ``"auto"``: as the
            environment variable ``QWENIMAGE_LORA_APPLY_AWQ_MOD`` says (1: yes).
        svd_rank: ranks that a term beside a quantised weight may have: what has more is cut down to these by its
            singular values, and the report says which part of its squared norm is left. 0 cuts nothing.

    Returns:
        A :class:`Report`, false when nothing was applied.

    Raises:
        ArgumentError, AdapterError and its kinds (HeaderError, ReadError, UnmatchedKeysError, AmbiguousKeyError),
        ModelError (also where somebody else wrote to a weight that adapters are in, the model is a copy of one, or a
        branch would get more ranks than its kernels take),
        FusionOverflowError, CudaError, MemoryError, OSError. After any of them every weight holds the bytes it held
        before.
    """
    root = unwrap("compose", model)
    retain = retain or ("file" if restore == "backup" else "memory")
    _require_one_of("compose", "restore", restore, TIERS)
    _require_one_of("compose", "retain", retain, RETENTIONS)
    _require_one_of("compose", "numerics", numerics, get_args(Numerics))
    if component is not None:
        _require_one_of("compose", "component", component, components())
    if restore == "file" and base is None:
        raise ArgumentError("[compose] restore is 'file' and base is None, expected the checkpoint to restore from")
    begin = time.perf_counter()
    state = state_of(root)
    wishes = wishes_of("compose", apply_awq_mod, svd_rank)
    fresh = Composition(
        restore=restore, retain=retain, strict=strict, component=component, numerics=numerics, wishes=wishes
    )
    try:
        fresh.entries = open_entries("compose", adapters, fresh.owned, use_cache)
        if base is not None and restore in ("auto", "file"):
            fresh.base = BaseCheckpoint.open(base)
        stages = {"open": time.perf_counter() - begin}
        with state.lock:
            state.settle()
            request = Request(fresh, opened=_opened(fresh.owned), non_blocking=non_blocking)
            return recompose(root, state, request, stages)
    finally:
        if state.composition is not fresh:
            give_back(fresh.owned)


def reset(model: nn.Module, adapters: Sequence[AnySource] | None = None, *, force: bool = False) -> bool:
    """Takes the composition out: every weight is byte-identical to what it was before. With ``adapters``, paths or
    open :class:`Adapter` objects, only those: the others stay, as if they had been composed alone.

    Returns True when there was something to undo; adapters that are not in the model are no error. Raises ModelError,
    and changes nothing, when a weight was converted or replaced since it was fused into, when it is on another device
    (on its own it may have moved, as offloading does it), when somebody else wrote to one, or when the model is a copy
    of one with adapters in it. What undoing needs may fail too: ReadError, ClosedError, MemoryError, CudaError leave
    every weight as it was.

    ``force=True`` undoes all the same. Weights that are out of reach are forgotten as they are. Where somebody else
    wrote to a weight, a copy or file brings the pristine bytes back and what was written is lost; a journal subtracts
    the adapters from what is there, so what was written stays but for rounding, and for elements whose pristine value
    the journal holds. Copies are taken as pristine.
    """
    root = unwrap("reset", model)
    state = state_of(root)
    with state.lock:
        accepted = composed_mark.accept(root) if force else False
        state.settle()
        previous = state.composition
        if not previous.held and not previous.branches and not previous.entries:
            composed_mark.require_original("reset", root)
            return accepted
        fresh = Composition()
        if adapters is not None:
            left = without("reset", adapters, previous.entries)
            if len(left) == len(previous.entries):
                return accepted
            fresh = previous.asked(left, previous.multiplier) if left else fresh
        touched = bool(previous.held or previous.branches)
        recompose(root, state, Request(fresh, "reset", force=force), {})
        return touched


def check(
    model: nn.Module,
    adapters: AnySource | Entries,
    *,
    strict: bool = False,
    component: str | None = None,
    apply_awq_mod: bool | str = "auto",
    svd_rank: int = 0,
) -> Report:
    """What :func:`compose` would do, touching nothing: one adapter, or a list of ``(source, strength)``.

    Pairs that do not fit are in the report, not raised; with ``strict=True`` raises as ``compose`` would.
    """
    root = unwrap("check", model)
    wishes = wishes_of("check", apply_awq_mod, svd_rank)
    listed: Entries = adapters if isinstance(adapters, (list, tuple)) else [(adapters, 1.0)]  # type: ignore[list-item]
    leases: list[Lease] = []
    try:
        begin = time.perf_counter()
        entries = open_entries("check", listed, leases)
        stages = {"open": time.perf_counter() - begin}
        state = state_of(root)
        with state.lock:
            begin = time.perf_counter()
            weights = state.weights(root)
            stages["index"] = time.perf_counter() - begin
            begin = time.perf_counter()
            plan = make_plan(weights, entries, component, dry_run=True, wishes=wishes)
            stages["plan"] = time.perf_counter() - begin
        if strict:
            plan.raise_if_unfit(strict)
        report = make_report(plan, weights.index, _opened(leases), stages)
        report.dry_run = True
        report.branches = {name: branch.describe() for branch in plan.branches for name in branch.names}
        plan.forget_weights()
        return report
    finally:
        give_back(leases)


def set_multiplier(model: nn.Module, multiplier: float) -> Report | None:
    """Recomposes what is composed with every strength multiplied; None where nothing was composed.

    Opens, parses and classifies nothing: factors come from what is retained.
    """
    root = unwrap("set_lora_strength_v2", model)
    strength = finite_strength("set_lora_strength_v2", multiplier, "strength")
    state = state_of(root)
    with state.lock:
        state.settle()
        composition = state.composition
        if not composition.entries:
            return None
        fresh = composition.asked(composition.entries, strength)
        return recompose(root, state, Request(fresh, "set_lora_strength_v2"), {})


def _opened(leases: Sequence[Lease]) -> list[Adapter]:
    return [lease.adapter for lease in leases if lease.is_fresh]


def _require_one_of(function: str, name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ArgumentError(f"[{function}] {name} is {value!r}, expected one of {', '.join(map(repr, known))}")


__all__ = ["AnySource", "Entries", "check", "compose", "reset", "set_multiplier"]
