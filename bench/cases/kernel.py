"""The kernel alone: one weight of Qwen-Image's size, by dtype and rank, beside torch and the machine's floor."""

from __future__ import annotations

import torch
from torch import Tensor

from lora_mmap import _C

from ..machine import Limits
from ..peers import torch_fuse
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import TOTAL, Contender, Samples, interleave

_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_RANKS = (16, 64, 128)
_ROWS, _COLS = 12288, 3072
_SCALE = 1e-3
_BEST = "torch row blocks"


@case("kernel")
def run(settings: Settings) -> CaseResult:
    rows = 1536 if settings.quick else _ROWS
    result = CaseResult(
        "kernel",
        f"Fusing one [{rows}, {_COLS}] weight in place, factors at the weight's dtype and in memory."
        + (f" Reduced by --quick from {_ROWS} rows." if settings.quick else ""),
        notes=[
            f"{_BEST}: fp32 addmm_ into preallocated, cache-sized blocks of rows (the block size fastest here), "
            "one rounding; for an fp32 weight addmm_ itself",
            "torch naive: W += s * (B @ A) at the weight's dtype; torch addmm: W.addmm_(B, A) at the weight's dtype "
            "(float16: left out, torch has no vectorised CPU path for it)",
            "torch naive is left out by --quick; contenders slower than 0.5 s are timed once",
            "the floor counts fp32 FMA, which a bfloat16 dot product (AVX512-BF16) can beat",
        ],
    )
    ambient = torch.get_num_threads()
    try:
        for threads in [ambient] if settings.quick else sorted({1, ambient}):
            torch.set_num_threads(threads)
            limits = Limits(threads)
            result.limits.append(limits)
            for dtype in _DTYPES:
                for rank in (16, 64) if settings.quick else _RANKS:
                    _measure(result, settings, limits, dtype, rows, rank)
    finally:
        torch.set_num_threads(ambient)
    return result


def _measure(result: CaseResult, settings: Settings, limits: Limits, dtype: torch.dtype, rows: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    weight = (torch.randn(rows, _COLS, generator=generator) * 0.02).to(dtype)
    up = (torch.randn(rows, rank, generator=generator) * 0.02).to(dtype)
    down = (torch.randn(rank, _COLS, generator=generator) * 0.02).to(dtype)
    samples = interleave(
        _contenders(weight, up, down, limits.threads, include_naive=not settings.quick),
        settings.rounds(full=5, quick=3),
        before_round=limits.probe,
        patience=0.5,
    )
    floor = limits.fuse_floor(rows, _COLS, rank, weight.itemsize)
    variant = f"{_DTYPES[dtype]} rank {rank}, {limits.threads} thread(s)"
    result.add(variant, samples, {(name, TOTAL): floor for name in samples})
    result.goals += _goals(variant, samples, floor, dtype, rank)


def _contenders(weight: Tensor, up: Tensor, down: Tensor, threads: int, include_naive: bool) -> list[Contender]:
    blocks = torch_fuse.RowBlocks()
    if weight.dtype != torch.float32:
        blocks.tune(weight, up, down)

    def ours() -> dict[str, float]:
        (rows, cols), rank, dtype = weight.shape, down.shape[0], _DTYPES[weight.dtype]
        term = (down.data_ptr(), dtype, cols, 1, up.data_ptr(), dtype, rank, 1, rank, 0, 0, _SCALE)
        at = weight.data_ptr()
        if _C.fuse([(at, at, rows, cols, cols, 1, cols, 1, dtype, [term])], threads):
            raise AssertionError("the fused weight is not finite")
        return {}

    def torch_way(name: str, fuse: torch_fuse.Fuse) -> Contender:
        def run() -> dict[str, float]:
            fuse(weight, up, down, _SCALE)
            return {}

        return Contender(name, run)

    contenders = [Contender(OURS, ours), torch_way(_BEST, blocks)]
    if include_naive:
        contenders.append(torch_way("torch naive", torch_fuse.naive))
    if weight.dtype == torch.bfloat16:
        contenders.append(torch_way("torch addmm", torch_fuse.addmm))
    return contenders


def _goals(variant: str, samples: dict[str, Samples], floor: float, dtype: torch.dtype, rank: int) -> list[Goal]:
    ours = samples[OURS].spread()
    wanted = 0.9 if rank >= 64 else 0.75 if dtype == torch.bfloat16 else 0.8
    rival, theirs = min(
        ((name, found.spread()) for name, found in samples.items() if name != OURS), key=lambda item: item[1].median
    )
    return [
        Goal(
            f"{variant}: >= {wanted:.0%} of the floor",
            f"{floor / ours.median:.0%} (best round {floor / ours.min:.0%})",
            floor / ours.median >= wanted,
        ),
        Goal(
            f"{variant}: not slower than torch's best way",
            f"{rival}: {theirs.median / ours.median:.2f} x our time",
            theirs.median >= ours.median,
        ),
    ]
