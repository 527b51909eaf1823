"""Fusing what is no plain LoRA: the kernels beside the usual way in torch, which makes the whole difference first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lora_mmap

from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import Contender, Samples, interleave

_SIDE, _RANK = 4096, 16
_FUSE = "fuse"
_PEERS = ("torch at the weight's dtype", "torch in fp32")


@dataclass(frozen=True)
class Algorithm:
    """Tensors of one module by the ending of their keys, and how torch changes a weight in place with them."""

    name: str
    tensors: dict[str, Tensor]
    change: Callable[[Tensor, dict[str, Tensor]], Tensor]


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape))) * 0.02


def _dora(weight: Tensor, t: dict[str, Tensor]) -> Tensor:
    weight.addmm_(t["lora_up.weight"], t["lora_down.weight"])
    return weight.mul_(t["dora_scale"] / torch.linalg.vector_norm(weight, dim=1, keepdim=True))


def _dora_inputs(weight: Tensor, t: dict[str, Tensor]) -> Tensor:
    weight.addmm_(t["lora_up.weight"], t["lora_down.weight"])
    return weight.mul_(t["dora_scale"] / torch.linalg.vector_norm(weight, dim=0, keepdim=True))


def _algorithms(side: int) -> list[Algorithm]:
    half = side // 8
    pair = {"lora_down.weight": _random(_RANK, side), "lora_up.weight": _random(side, _RANK)}
    hada = {f"hada_w{n}_{x}": _random(*((side, _RANK) if x == "a" else (_RANK, side))) for n in (1, 2) for x in "ab"}
    w1, w2 = {"lokr_w1": _random(8, 8)}, {"lokr_w2_a": _random(half, _RANK), "lokr_w2_b": _random(_RANK, half)}
    return [
        Algorithm(
            "LoHa, rank 16",
            hada,
            lambda w, t: w.addcmul_(t["hada_w1_a"] @ t["hada_w1_b"], t["hada_w2_a"] @ t["hada_w2_b"]),
        ),
        Algorithm(
            "LoKr, rank 16",
            w1 | w2,
            lambda w, t: w.add_(torch.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])),
        ),
        Algorithm(
            "LoKr, whole factors",
            w1 | {"lokr_w2": _random(half, half)},
            lambda w, t: w.add_(torch.kron(t["lokr_w1"], t["lokr_w2"])),
        ),
        Algorithm("DoRA, rank 16, norm per row", pair | {"dora_scale": _random(side, 1).abs() + 1}, _dora),
        Algorithm("DoRA, rank 16, norm per input", pair | {"dora_scale": _random(1, side).abs() + 1}, _dora_inputs),
        Algorithm("full difference", {"diff": _random(side, side)}, lambda w, t: w.add_(t["diff"])),
    ]


@case("algorithms")
def run(settings: Settings) -> CaseResult:
    side = 1024 if settings.quick else _SIDE
    result = CaseResult(
        "algorithms",
        f"One [{side}, {side}] weight, tensors at its dtype and in memory; `{_FUSE}` is the time in the kernels, "
        "without planning and without the copy that undoes it.",
        notes=[
            f"{_PEERS[0]}: the formula, in place; {_PEERS[1]}: the same on an fp32 copy of the weight, rounded once",
            "a goal compares the fuse stage with the faster of the two; the second has the accuracy",
            "DoRA reads the weight and multiplies twice: once for the norms",
        ],
    )
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for algorithm in _algorithms(side):
            _measure(result, settings, algorithm, dtype, side)
    return result


def _measure(result: CaseResult, settings: Settings, algorithm: Algorithm, dtype: torch.dtype, side: int) -> None:
    layer = nn.Linear(side, side, bias=False, dtype=dtype)
    layer.requires_grad_(False)
    model = nn.ModuleDict({"m": layer})
    pristine = layer.weight.detach().clone()
    tensors = {name: value.to(dtype) for name, value in algorithm.tensors.items()}
    wide = {name: value.float() for name, value in tensors.items()}
    adapter = lora_mmap.open_adapter({f"m.{name}": value for name, value in tensors.items()})

    def ours() -> dict[str, float]:
        report = lora_mmap.compose(model, [(adapter, 1.0)], restore="none")
        return {_FUSE: report.stages["fuse"]}

    def narrow_way() -> dict[str, float]:
        algorithm.change(layer.weight.data, tensors)
        return {}

    def wide_way() -> dict[str, float]:
        layer.weight.copy_(algorithm.change(layer.weight.to(torch.float32, copy=True), wide))
        return {}

    def restore() -> None:
        layer.weight.copy_(pristine)

    contenders = [
        Contender(OURS, ours, restore),
        Contender(_PEERS[0], narrow_way, restore),
        Contender(_PEERS[1], wide_way, restore),
    ]
    with adapter:
        samples = interleave(contenders, settings.rounds(full=7, quick=3))
    variant = f"{algorithm.name}, {str(dtype).removeprefix('torch.')}"
    result.add(variant, samples, {})
    result.goals.append(_goal(variant, samples))


def _goal(variant: str, samples: dict[str, Samples]) -> Goal:
    ours = samples[OURS].spread(_FUSE)
    rival = min(_PEERS, key=lambda name: samples[name].spread().median)
    theirs = samples[rival].spread()
    return Goal(
        f"{variant}: not slower than torch",
        f"{rival}: {theirs.median / ours.median:.2f} x our time",
        theirs.median >= ours.median,
    )
