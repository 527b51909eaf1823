"""A GPU: right results first, then its ceilings, then loading and fusing held against them and beside the peers."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from ..adapters import write_diffusers
from ..gpu import ceilings, checks, device, fuse, load, undo
from ..gpu.ceilings import Ceilings
from ..gpu.checks.check import Setting
from ..gpu.findings import Budget, Findings
from ..gpu.fuse import Ours
from ..gpu.sdxl_linears import sdxl_linears
from ..gpu.stack import flux_linears
from ..models import Pattern, linears, sdxl_unet, tree_of
from ..peers import missing
from ..registry import Settings, case
from ..results import CaseResult

# Seconds for everything; what is not begun by then is left out.
_ALL, _ALL_QUICK = 450, 55
_KEPT = (Ours("ordered", "auto"), Ours("ordered", "backup"), Ours("fast", "auto"))
_COMMITTED = (Ours("ordered", "none"), Ours("fast", "none"))
_H200 = "H200"


@case("gpu", belongs=device.is_there)
def run(settings: Settings) -> CaseResult:
    result = CaseResult("gpu", "Not measured.")
    if why := device.why_not():
        result.left_out.append(f"not measured: no CUDA device ({why})")
        return result
    here = torch.device("cuda", torch.cuda.current_device())
    result.facts["device"] = device.facts(here)
    if why := device.why_no_kernels(here):
        result.left_out.append(f"not measured: no kernels for {torch.cuda.get_device_name(here)} ({why})")
        return result
    result.description = f"Everything on {torch.cuda.get_device_name(here)}; files in the page cache."
    result.notes = [
        "times are wall-clock from the call until the device is idle; medians of interleaved rounds after a warm-up",
        "`fuse` and `save` of ours are device time between events; torch's stages wall-clock with the device waited "
        "for in between; PEFT's are not waited for, only its total is",
        "`memory` is the most device memory of torch's allocator above the level before, not resident memory",
        "the floor of `fuse` is max(weights read and written / in-place bandwidth, multiply-adds / fp32 peak); without "
        "the latter for numerics=fast and for peers, which have tensor cores",
        "what undoes a composition no peer has: a journal, made in `fuse`, or a copy, made in `save` (restore=backup, "
        "numerics=fast); restore=none has it until the commit",
        "goals in seconds are for an H200 and are judged on no other device",
    ]
    measure(Findings(result), here, settings)
    return result


def measure(findings: Findings, here: torch.device, settings: Settings) -> None:
    """All sections. Whatever one cannot do is in the findings, and the next one begins."""
    budget = Budget(_ALL_QUICK if settings.quick else _ALL)
    facts = findings.result.facts.setdefault("device", device.facts(here))
    findings.line("device", f"{facts['name']}, driver {facts['driver']}, torch {torch.__version__}")
    core = facts["core"]["device"]
    findings.line("kernels", str(core.get("image") or core.get("why") or core.get("missing")))
    with findings.step("checks"):
        checks.run(findings, Setting.on(here, settings.scratch / "checks", settings.quick), budget.part(90))
    limits = Ceilings()
    with findings.step("ceilings"):
        limits = ceilings.measure(findings, here, budget.part(45), settings.quick)
    findings.result.facts["ceilings"] = limits.to_dict()
    with findings.step("loading"):
        load.measure(
            findings, here, limits, settings.scratch, budget.part(10 if settings.quick else 60), settings.quick
        )
    release(here)
    for target in targets(settings.quick):
        if budget.left < 5:
            findings.left_out(target.what, "no time left")
            continue
        with findings.step(target.what):
            fuse_into(findings, here, limits, target, settings, budget.part(target.seconds))
        release(here)


@dataclass(frozen=True)
class Target:
    """A model to fuse into, by its size. ``seconds`` for all of its ranks."""

    what: str
    dtype: torch.dtype
    shapes: dict[str, tuple[int, int]]
    ranks: tuple[int, ...]
    seconds: float
    rounds: int
    is_sdxl: bool = False


def targets(quick: bool) -> list[Target]:
    """In the order in which they are missed if time runs out: the last ones first."""
    found = [_sdxl(torch.bfloat16), _flux(quick)]
    return found if quick else [*found, _sdxl(torch.float16)]


def _sdxl(dtype: torch.dtype) -> Target:
    name = str(dtype).removeprefix("torch.")
    return Target(f"SDXL {name}", dtype, sdxl_linears(), (16, 64), 100, 15, is_sdxl=True)


def _flux(quick: bool) -> Target:
    if quick:
        return Target("a stack of Flux's shapes, 1 + 2 blocks", torch.bfloat16, flux_linears(1, 2), (16,), 15, 3)
    return Target("12B bfloat16 stack", torch.bfloat16, flux_linears(), (16,), 80, 5)


def fuse_into(
    findings: Findings, here: torch.device, limits: Ceilings, target: Target, settings: Settings, budget: Budget
) -> None:
    """Builds the model on the device, writes an adapter a rank, and measures. Leaves nothing behind."""
    elements = sum(rows * cols for rows, cols in target.shapes.values())
    # The weights, as much again for what undoes a composition, and the factors of either side.
    needed, free = 5 * elements + (1 << 30), device.free_nbytes(here)
    if free is not None and free < needed:
        findings.left_out(target.what, f"needs {needed >> 20} MiB of device memory, {free >> 20} MiB are free")
        findings.line(target.what, "left out: not enough device memory")
        return
    whole = target.is_sdxl and not missing("diffusers")
    if target.is_sdxl and not whole:
        findings.left_out(target.what, "all but its Linears, and diffusers + PEFT: diffusers not installed")
    model = sdxl_unet(False, here, target.dtype) if whole else tree_of(target.shapes, here, target.dtype)
    pattern = Pattern(model)
    ranks = target.ranks[:1] if settings.quick else target.ranks
    for position, rank in enumerate(ranks):
        what = f"{target.what}, rank {rank}"
        with findings.step(what):
            path = _adapter(settings.scratch, linears(model), rank, seed=rank)
            subject = fuse.Subject(what, here, model, pattern, path, "unet.", rank, _seconds_goals(target, rank))
            ways = (*_KEPT, *_COMMITTED) if target.is_sdxl else _COMMITTED
            part = budget.part(budget.left / (len(ranks) - position))
            rounds = settings.rounds(full=target.rounds, quick=3)
            if target.is_sdxl:
                other = _adapter(settings.scratch, linears(model), rank, seed=rank + 1)
                undo.measure(findings, subject, other, settings.rounds(full=7, quick=2), part.part(part.left / 4))
                other.unlink()
            fuse.measure(findings, subject, limits, ways, rounds, part, with_peft=whole and not settings.quick)
            path.unlink()


def _adapter(scratch: Path, modules: dict[str, torch.nn.Linear], rank: int, seed: int) -> Path:
    folder = scratch / f"rank-{rank}-seed-{seed}"
    return write_diffusers(folder / "pytorch_lora_weights.safetensors", modules, rank, seed=seed)


def _seconds_goals(target: Target, rank: int) -> tuple[tuple[str, str, float], ...]:
    if rank != 16:
        return ()
    if target.is_sdxl:
        return ((_H200, "total", 25e-3),)
    return ((_H200, "fuse", 12e-3),) if target.what.startswith("12B") else ()


def release(here: torch.device) -> None:
    """Gives the memory of models that are gone back to the device."""
    gc.collect()
    if here.type == "cuda":
        torch.cuda.empty_cache()
