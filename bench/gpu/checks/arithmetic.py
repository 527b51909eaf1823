"""Fused weights: the CPU's bits in ordered mode, and how far from float64 in either."""

from __future__ import annotations

import torch
from torch import nn

import lora_mmap
from lora_mmap.model_state import Numerics

from ...adapters import write_diffusers
from ...models import Pattern, linears, tree_of
from .. import small_model
from ..float64 import Reference
from ..small_model import Adapter
from .check import CPU, Check, Setting, fused_on_cpu, require_bytes

# Tensor cores add in their own order and do not round every sum to nearest: this much more than an ordered fp32 sum.
_FAST_FACTOR = 8.0


def _same_bits(setting: Setting) -> str:
    """Single adapters, all together, and from one composition to another without a reset in between."""
    model = small_model.build(setting.device)
    every, some, large = setting.adapters
    histories = ([every], [some], [large], [every, some, large], [large, some], [every])
    for number, chosen in enumerate(histories):
        lora_mmap.compose(model, small_model.entries(chosen), strict=True)
        require_bytes(model, fused_on_cpu(chosen), f"composition {number + 1} of {len(histories)}")
    count = len(list(model.parameters()))
    return f"{count} weights, {len(histories)} compositions one after the other: every byte is the CPU's"


def _many_windows(setting: Setting) -> str:
    """More factors than are on the device at a time, and more tiles than it has multiprocessors."""
    shapes = {f"blocks.{i}.proj": (1000 + 8 * i, 2304) for i in range(12 if setting.quick else 40)}
    device_model, cpu_model = (tree_of(shapes, device, torch.bfloat16) for device in (setting.device, CPU))
    patterns = [Pattern(model) for model in (device_model, cpu_model)]
    for rank in (256, 16):
        path = write_diffusers(setting.scratch / f"windows-{rank}.safetensors", linears(cpu_model), rank, 4, prefix="")
        for model in (device_model, cpu_model):
            lora_mmap.compose(model, [(path, 1.0)], strict=True)
        pairs = zip(device_model.named_parameters(), cpu_model.parameters(), strict=True)
        wrong = [name for (name, found), expected in pairs if not torch.equal(found.cpu(), expected)]
        if wrong:
            raise AssertionError(f"rank {rank}: {len(wrong)} of {len(shapes)} weights differ: {', '.join(wrong[:4])}")
    lora_mmap.reset(device_model)
    if changed := patterns[0].changed(whole=True):
        raise AssertionError(f"after reset {changed} of {len(shapes)} weights are not what they were")
    return f"{len(shapes)} weights, ranks 256 and 16: the CPU's bits, and back"


def _ordered(setting: Setting) -> str:
    model, reference = _composed(setting, "ordered", setting.adapters)
    worst, relative = _worst(model, reference, 1.0)
    return f"at most {worst:.2f} of the bound; relative error {relative}"


def _fast(setting: Setting) -> str:
    """All three adapters, then the high rank alone: every one of its factors can go through tensor cores."""
    seen = []
    for label, chosen in (("all", setting.adapters), ("rank 70", setting.adapters[2:])):
        model, reference = _composed(setting, "fast", chosen)
        worst, relative = _worst(model, reference, _FAST_FACTOR)
        seen.append(f"{label}: at most {worst:.2f} of {_FAST_FACTOR:g} x the bound, relative error {relative}")
    return "; ".join(seen)


def _undo_fast(setting: Setting) -> str:
    model = small_model.build(setting.device)
    pristine = small_model.stored_bytes(small_model.build(CPU))
    lora_mmap.compose(model, small_model.entries(setting.adapters), numerics="fast")
    lora_mmap.reset(model)
    require_bytes(model, pristine, "after a reset")
    lora_mmap.compose(model, small_model.entries(setting.adapters[:1]), numerics="fast")
    lora_mmap.compose(model, small_model.entries(setting.adapters), numerics="ordered")
    require_bytes(model, fused_on_cpu(setting.adapters), "ordered after fast")
    return "reset brings every byte back; ordered after fast has the CPU's bytes"


def _composed(setting: Setting, numerics: Numerics, adapters: list[Adapter]) -> tuple[nn.Module, Reference]:
    model = small_model.build(setting.device)
    reference = Reference(model, adapters)
    lora_mmap.compose(model, small_model.entries(adapters), strict=True, numerics=numerics)
    return model, reference


def _worst(model: nn.Module, reference: Reference, factor: float) -> tuple[float, str]:
    """(error as a fraction of the bound, the largest relative error by dtype). Raises where the bound is broken."""
    relative: dict[torch.dtype, float] = {}
    worst = 0.0
    dtypes = {name: weight.dtype for name, weight in model.named_parameters()}
    for name, errors in reference.errors(model, factor).items():
        if not errors.of_bound <= 1:
            raise AssertionError(f"{name} ({dtypes[name]}) is at {errors.of_bound:.3g} of the bound")
        worst = max(worst, errors.of_bound)
        relative[dtypes[name]] = max(relative.get(dtypes[name], 0.0), errors.relative)
    listed = [f"{str(dtype).removeprefix('torch.')} {error:.1e}" for dtype, error in relative.items()]
    return worst, ", ".join(listed)


CHECKS = (
    Check("ordered: bits of the CPU", _same_bits),
    Check("ordered: bits of the CPU, many windows", _many_windows),
    Check("ordered: float64 bound", _ordered),
    Check("fast: error against float64", _fast),
    Check("fast: undone to the byte", _undo_fast),
)
