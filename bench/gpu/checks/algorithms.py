"""Terms of every kind on every kind of weight: the CPU's bits, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import lora_mmap

from .. import small_model
from ..small_model import Target
from .check import CPU, Check, Setting, require_bytes

_RANK = 5
_Make = Callable[[Target, torch.Generator], dict[str, Tensor]]


def _filled(generator: torch.Generator, *shape: int) -> Tensor:
    return (torch.randn(shape, generator=generator) * 0.3).to(torch.float16)


def _lora(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    ones = [1] * len(target.inner[1:])
    down, up = _filled(generator, _RANK, *target.inner), _filled(generator, target.rows, _RANK, *ones)
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(3.0)}


def _tucker(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    if math.prod(target.inner[1:]) == 1:
        return _lora(target, generator)
    ones = [1] * len(target.inner[1:])
    return {
        "lora_down.weight": _filled(generator, _RANK, target.inner[0], *ones),
        "lora_mid.weight": _filled(generator, _RANK, _RANK, *target.inner[1:]),
        "lora_up.weight": _filled(generator, target.rows, _RANK, *ones),
    }


def _loha(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    columns = math.prod(target.inner)
    halves = {f"hada_w{half}_a": _filled(generator, target.rows, _RANK) for half in (1, 2)}
    return halves | {f"hada_w{half}_b": _filled(generator, _RANK, columns) for half in (1, 2)}


def _lokr(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    (inputs, *kernel), outer = target.inner, [2 - size % 2 for size in (target.rows, target.inner[0])]
    inner = target.rows // outer[0], inputs // outer[1] * math.prod(kernel)
    return {
        "lokr_w1": _filled(generator, *outer),
        "lokr_w2_a": _filled(generator, inner[0], _RANK),
        "lokr_w2_b": _filled(generator, _RANK, inner[1]),
    }


def _ia3(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    return {"weight": _filled(generator, target.rows), "on_input": torch.tensor(0)}


def _full(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
    values = _filled(generator, target.rows, *target.inner)
    return {"diff": values.t().contiguous() if target.transposed else values}  # as the layer keeps it


def _norms(make: _Make, by_rows: bool) -> _Make:
    def tensors(target: Target, generator: torch.Generator) -> dict[str, Tensor]:
        ones = [1] * len(target.inner[1:])
        shape = (target.rows, 1, *ones) if by_rows else (1, target.inner[0], *ones)
        return make(target, generator) | {"dora_scale": _filled(generator, *shape).abs() + 0.5}

    return tensors


_KINDS: dict[str, _Make] = {
    "LoHa": _loha,
    "LoKr": _lokr,
    "Tucker": _tucker,
    "DoRA by rows": _norms(_lora, True),
    "DoRA by inputs": _norms(_lora, False),
    "DoRA over LoHa": _norms(_loha, True),
    "(IA)3": _ia3,
    "full differences": _full,
}


def _adapters() -> Iterator[tuple[str, dict[str, Tensor], float]]:
    """(kind, tensors for every target, strength)"""
    for seed, (kind, make) in enumerate(_KINDS.items()):
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            f"{name}.{ending}": value
            for name, target in small_model.targets().items()
            for ending, value in make(target, generator).items()
        }
        yield kind, tensors, 0.5 - seed % 3


def _same_bits(setting: Setting) -> str:
    """Each alone, then all of them on every weight at once."""
    model, reference = small_model.build(setting.device), small_model.build(CPU)
    pristine = small_model.stored_bytes(reference)
    found = list(_adapters())
    compositions = [(kind, [(tensors, strength)]) for kind, tensors, strength in found]
    compositions.append(("all of them", [(tensors, strength) for _, tensors, strength in found]))
    for label, entries in compositions:
        for each in (model, reference):
            lora_mmap.compose(each, entries, strict=True)
        require_bytes(model, small_model.stored_bytes(reference), label)
    lora_mmap.reset(model)
    require_bytes(model, pristine, "after a reset")
    return f"{', '.join(kind for kind, *_ in found)}, and all of them at once: every byte is the CPU's; reset"


CHECKS = (Check("terms of every kind: bits of the CPU", _same_bits),)
