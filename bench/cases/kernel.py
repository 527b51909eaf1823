"""The kernel alone: one weight of Qwen-Image's size, by dtype and rank, beside torch and the machine's floor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lora_mmap import _C

from ..machine import Limits
from ..peers import torch_fuse
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import TOTAL, Contender, Samples, interleave

_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_RANKS = (4, 16, 64, 128, 256)
_LARGE = (12288, 3072)
_SHAPES = (_LARGE, (4096, 4096), (640, 640))
_SCALE = 1e-3
_BLOCKS = "torch row blocks"
_UPCAST = "torch upcast"
_ADDMM = "torch addmm"
_NAIVE = "torch naive"
_SLOW_FP16_RANK = 16


@case("kernel")
def run(settings: Settings) -> CaseResult:
    shapes = ((1536, 3072), (640, 640)) if settings.quick else _SHAPES
    result = CaseResult(
        "kernel",
        f"Fusing one weight of {', '.join(f'{rows} x {cols}' for rows, cols in shapes)} in place, factors at the "
        "weight's dtype and in memory." + (" Reduced by --quick." if settings.quick else ""),
        notes=[
            f"{_BLOCKS}: fp32 addmm_ into preallocated, cache-sized blocks of rows (the block size fastest here), "
            "one rounding",
            f"{_UPCAST}: the whole weight in an fp32 buffer that is kept, addmm_, one rounding",
            f"{_ADDMM}: W.addmm_(B, A) at the weight's dtype; {_NAIVE}: W += s * (B @ A) at the weight's dtype; both "
            f"in float16 up to rank {_SLOW_FP16_RANK} only (a scalar loop: seconds a call)",
            f"{_NAIVE} is left out by --quick and beyond {_LARGE[0]} x {_LARGE[1]}; contenders slower than 0.5 s are "
            "timed once",
            "the floor counts fp32 FMA, which a bfloat16 dot product (AVX512-BF16, torch's addmm) can beat at half the "
            "time: it scales the finished sum, where the contract's sum is over fp32 products B * s",
        ],
    )
    ambient = torch.get_num_threads()
    try:
        for threads in [ambient] if settings.quick else sorted({1, ambient}):
            torch.set_num_threads(threads)
            limits = Limits(threads)
            result.limits.append(limits)
            for shape in shapes:
                for dtype in _DTYPES:
                    for rank in (16, 64) if settings.quick else _RANKS:
                        _measure(result, settings, limits, dtype, shape, rank)
    finally:
        torch.set_num_threads(ambient)
    return result


def _measure(
    result: CaseResult, settings: Settings, limits: Limits, dtype: torch.dtype, shape: tuple[int, int], rank: int
) -> None:
    rows, cols = shape
    generator = torch.Generator().manual_seed(rank)
    weight = (torch.randn(rows, cols, generator=generator) * 0.02).to(dtype)
    up = (torch.randn(rows, rank, generator=generator) * 0.02).to(dtype)
    down = (torch.randn(rank, cols, generator=generator) * 0.02).to(dtype)
    samples = interleave(
        _contenders(weight, up, down, limits.threads, include_naive=not settings.quick and shape == _LARGE),
        settings.rounds(full=7, quick=3),
        before_round=limits.probe,
        patience=0.5,
    )
    floor = limits.fuse_floor(rows, cols, rank, weight.itemsize)
    variant = f"{rows} x {cols} {_DTYPES[dtype]} rank {rank}, {limits.threads} thread(s)"
    result.add(variant, samples, {(name, TOTAL): floor for name in samples})
    # Less than 4 MiB stays in the caches: the bandwidth of memory says nothing about it.
    result.goals += _goals(variant, samples, floor if weight.nbytes > 4 << 20 else None, dtype, rank)


def _contenders(weight: Tensor, up: Tensor, down: Tensor, threads: int, include_naive: bool) -> list[Contender]:
    def ours() -> dict[str, float]:
        if _C.fuse([_job(weight, up, down)], threads):
            raise AssertionError("the fused weight is not finite")
        return {}

    def torch_way(name: str, fuse: torch_fuse.Fuse) -> Contender:
        def run() -> dict[str, float]:
            fuse(weight, up, down, _SCALE)
            return {}

        return Contender(name, run)

    contenders = [Contender(OURS, ours)]
    if weight.dtype != torch.float32:
        blocks = torch_fuse.RowBlocks()
        blocks.tune(weight, up, down)
        contenders += [torch_way(_BLOCKS, blocks), torch_way(_UPCAST, torch_fuse.Upcast())]
    if weight.dtype != torch.float16 or up.shape[1] <= _SLOW_FP16_RANK:
        contenders.append(torch_way(_ADDMM, torch_fuse.addmm))
        if include_naive:
            contenders.append(torch_way(_NAIVE, torch_fuse.naive))
    return contenders


def _job(weight: Tensor, up: Tensor, down: Tensor) -> Any:
    """What ``_C.fuse`` takes."""
    (rows, cols), rank, dtype = weight.shape, down.shape[0], _DTYPES[weight.dtype]
    term = (down.data_ptr(), dtype, cols, 1, up.data_ptr(), dtype, rank, 1, rank, 0, 0, _SCALE)
    return (weight.data_ptr(), weight.data_ptr(), rows, cols, cols, 1, cols, 1, dtype, [term])


def _goals(variant: str, samples: dict[str, Samples], floor: float | None, dtype: torch.dtype, rank: int) -> list[Goal]:
    ours = samples[OURS].spread()
    rival, theirs = min(
        ((name, found.spread()) for name, found in samples.items() if name != OURS), key=lambda item: item[1].median
    )
    goals = [
        Goal(
            f"{variant}: not slower than torch's best way",
            f"{rival}: {theirs.median / ours.median:.2f} x our time (best rounds {theirs.min / ours.min:.2f} x)",
            theirs.median >= ours.median,
        )
    ]
    if floor is not None and rank >= 16:
        wanted = 0.9 if rank >= 64 else 0.75 if dtype == torch.bfloat16 else 0.8
        goals.append(
            Goal(
                f"{variant}: >= {wanted:.0%} of the floor (machine)",
                f"{floor / ours.median:.0%} (best round {floor / ours.min:.0%})",
                floor / ours.median >= wanted,
            )
        )
    return goals
