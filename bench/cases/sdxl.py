"""File to weights: a rank-16 adapter on every Linear of an SDXL UNet of real size."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import lora_mmap
from lora_mmap.model_index import ModelIndex

from ..adapters import write_diffusers
from ..machine import Limits
from ..memory import release_freed, touch_free_memory
from ..models import Pattern, linears, sdxl_unet
from ..peers import diffusers_peft, missing, torch_fuse
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import TOTAL, Contender, Samples, interleave

_RANK = 16
_NONE = f"{OURS} restore=none"
_BACKUP = f"{OURS} restore=backup"
_ONEDIFFX = "onediffx-arithmetic"
_BLOCKS = "torch row blocks"
_WITHOUT_SAVE = "total without save"
_MEMORY_GOAL = 32 << 20
_TOUCH_BEYOND = 128 << 20
# Beyond this the kernels of some virtual machines start to give memory back at once, and touching it gains nothing.
_MOST_TOUCHED = 768 << 20


@case("sdxl")
def run(settings: Settings) -> CaseResult:
    result = CaseResult("sdxl", "")
    if reason := missing("diffusers"):
        result.description = "Not run."
        result.left_out.append(f"the whole case: {reason}")
        return result
    model = sdxl_unet(reduced=settings.quick)
    pattern = Pattern(model)
    modules = linears(model)
    path = write_diffusers(settings.scratch / "sdxl" / "pytorch_lora_weights.safetensors", modules, _RANK, seed=1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result.description = (
        f"{'A reduced SDXL UNet (--quick: not the real size)' if settings.quick else 'The SDXL UNet'}, "
        f"{parameters / 1e9:.2f} G parameters, bfloat16; a rank-{_RANK} adapter on its {len(modules)} Linears "
        f"({path.stat().st_size / 1e6:.0f} MB, in the page cache), from the file to fused weights."
    )
    result.notes = [
        f"{OURS} makes a journal while it fuses and keeps the factors: with them every byte comes back, which no peer "
        "can do",
        f"`save` is the copy that restore=backup makes instead; `{_WITHOUT_SAVE}` leaves it out",
        "restore=none commits and forgets, yet has the journal until the commit, so that a fault can roll back",
        f"{_ONEDIFFX}: its arithmetic on tensors from safetensors' load_file, written here; no pipeline around it",
        f"{_BLOCKS}: safetensors' load_file, then fp32 addmm_ in cache-sized blocks of rows: the best torch way",
        "times of a module tree known already; the first call on a model also builds the index (its own row)",
        f"up to {_MOST_TOUCHED >> 20} MiB of free memory are touched before every run: on a virtual machine that "
        "returns free memory to its host, first touches are slow; larger needs (a full-size restore "
        "copy) still meet that",
        "a contender whose warm-up took over 20 s is timed once",
        "a goal is met when both the medians and the best rounds meet it: torch's worker threads suffer more than ours "
        "where a core is taken away, which must not count for us",
        "after each warm-up every Linear's weight is checked to have changed",
    ]
    listed: list[int] = []
    contenders = _contenders(result, model, pattern, path, listed)
    _require_exact_reset(model, pattern, path)
    limits = Limits(torch.get_num_threads())
    result.limits.append(limits)

    copy_nbytes = sum(module.weight.nbytes for module in modules.values())

    def prepare() -> None:
        if not settings.warm_allocator:
            release_freed()
        touch_free_memory(min(copy_nbytes + _TOUCH_BEYOND, _MOST_TOUCHED))

    samples = interleave(
        contenders,
        settings.rounds(full=3, quick=1),
        before_round=limits.probe,
        after_warm_up=lambda contender: _require_changed(contender, pattern),
        before_each=prepare,
        patience=20.0,
    )
    _add_rows(result, samples, modules, limits)
    _judge(result, samples, max(listed), settings.quick)
    result.goals.append(_floor_goal(samples, modules, limits))
    return result


def _contenders(
    result: CaseResult, model: nn.Module, pattern: Pattern, path: Path, listed: list[int]
) -> list[Contender]:
    """``listed`` receives the bytes that reports of compositions with a journal say are held or were needed."""

    def ours(restore: str) -> Callable[[], dict[str, float]]:
        def compose() -> dict[str, float]:
            begin = time.perf_counter()
            report = lora_mmap.compose(model, [(path, 1.0)], restore=restore)
            if restore == "auto":
                listed.append(sum(report.memory[kind] for kind in ("restore", "retained", "transient")))
            return {**report.stages, _WITHOUT_SAVE: time.perf_counter() - begin - report.stages["save"]}

        return compose

    def index() -> dict[str, float]:
        ModelIndex(model)
        return {}

    contenders = [
        Contender(OURS, ours("auto"), lambda: _reset(model)),
        Contender(_BACKUP, ours("backup"), lambda: _reset(model)),
        Contender(_NONE, ours("none"), pattern.restore),
        Contender(f"{OURS} index", index),
        Contender(_ONEDIFFX, _by_torch(model, path, torch_fuse.onediffx_arithmetic), pattern.restore),
    ]
    blocks = torch_fuse.RowBlocks()
    weight = max((module.weight for module in linears(model).values()), key=lambda weight: weight.numel())
    blocks.tune(weight, torch.zeros(weight.shape[0], _RANK), torch.zeros(_RANK, weight.shape[1]))
    contenders.append(Contender(_BLOCKS, _by_torch(model, path, blocks), pattern.restore))
    if reason := diffusers_peft.why_not():
        result.left_out.append(f"{diffusers_peft.NAME}: {reason}")
        return contenders
    peer = diffusers_peft.DiffusersPeft(model)

    def undo() -> None:
        peer.unload()
        pattern.restore()

    return [*contenders, Contender(diffusers_peft.NAME, lambda: peer.load_and_fuse(path), undo)]


def _by_torch(model: nn.Module, path: Path, fuse: torch_fuse.Fuse) -> Callable[[], dict[str, float]]:
    modules = linears(model)

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        tensors = load_file(str(path))
        loaded = time.perf_counter()
        with torch.no_grad():
            for name, module in modules.items():
                up, down = tensors[f"unet.{name}.lora_B.weight"], tensors[f"unet.{name}.lora_A.weight"]
                fuse(module.weight, up, down, 1.0)
        return {"load": loaded - begin, "fuse": time.perf_counter() - loaded}

    return run


def _reset(model: nn.Module) -> None:
    lora_mmap.reset(model)


def _require_changed(contender: Contender, pattern: Pattern) -> None:
    if contender.name == f"{OURS} index":
        return
    changed, expected = pattern.changed(), pattern.count
    if changed != expected:
        raise AssertionError(f"{contender.name} changed {changed} of {expected} Linears")


def _require_exact_reset(model: nn.Module, pattern: Pattern, path: Path) -> None:
    lora_mmap.compose(model, [(path, 1.0)])
    lora_mmap.reset(model)
    if pattern.changed(whole=True):
        raise AssertionError("reset did not bring every byte back")


def _fuse_floor(modules: dict[str, nn.Linear], limits: Limits) -> float:
    """Seconds that no fusion of all Linears can beat: arithmetic and traffic of all of them, whichever takes longer."""
    sizes = [(module.out_features, module.in_features, module.weight.itemsize) for module in modules.values()]
    flops = sum(2 * rows * cols * _RANK for rows, cols, _ in sizes)
    nbytes = sum(2 * rows * cols * itemsize for rows, cols, itemsize in sizes)
    return max(flops / max(limits.fma), nbytes / max(limits.read_write))


def _floor_goal(samples: dict[str, Samples], modules: dict[str, nn.Linear], limits: Limits) -> Goal:
    floor, wanted = _fuse_floor(modules, limits), 0.75
    ours = samples[OURS].spread("fuse")
    return Goal(
        f"the UNet as a whole, fuse: >= {wanted:.0%} of the floor (machine), bfloat16 rank {_RANK}",
        f"{floor / ours.median:.0%} (best round {floor / ours.min:.0%})",
        floor / ours.median >= wanted,
    )


def _add_rows(result: CaseResult, samples: dict[str, Samples], modules: dict[str, nn.Linear], limits: Limits) -> None:
    fuse = _fuse_floor(modules, limits)
    copy = limits.copy_floor(sum(module.weight.nbytes for module in modules.values()))
    floors: dict[tuple[str, str], float] = {(name, "fuse"): fuse for name in samples}
    floors |= {(_BACKUP, "save"): copy, (_BACKUP, _WITHOUT_SAVE): fuse, (_BACKUP, TOTAL): fuse + copy}
    floors |= {(name, TOTAL): fuse for name in (OURS, _NONE, _ONEDIFFX, _BLOCKS, diffusers_peft.NAME)}
    result.add("reduced" if "reduced" in result.description else "full size", samples, floors)


def _judge(result: CaseResult, samples: dict[str, Samples], listed_nbytes: int, reduced: bool) -> None:
    ours = samples[OURS].spread()
    for peer, wanted in ((diffusers_peft.NAME, 4.0), (_ONEDIFFX, 8.0)):
        if peer not in samples:
            continue
        theirs = samples[peer].spread()
        ratio, best = theirs.median / ours.median, theirs.min / ours.min
        statement = f"{wanted:g}x faster than {peer}, with all that undoes it{' (reduced model)' if reduced else ''}"
        result.goals.append(Goal(statement, f"{ratio:.1f}x (best rounds {best:.1f}x)", min(ratio, best) >= wanted))
    if samples[OURS].growth:
        beside = max(samples[OURS].growth) - listed_nbytes
        statement = f"memory beside the {listed_nbytes / 2**20:.0f} MiB that the report lists <= 32 MiB"
        result.goals.append(Goal(statement, f"{beside / 2**20:.1f} MiB", beside <= _MEMORY_GOAL))
