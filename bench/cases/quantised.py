"""Adapters on a quantised Qwen-Image: rows and columns added to the low-rank branches, and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

import lora_mmap

from ..adapters import write_diffusers
from ..low_rank_branches import Branches
from ..peers import nunchaku_loader, safetensors_files
from ..peers.nunchaku_loader import NunchakuLoader
from ..quantised_models import NunchakuQwenImageTransformer2DModel, svdq_linears, unfused
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import Contender, Samples, Script, interleave, interleave_scripts, progress

_RANK = 16
_REAL_WIDTH = 3072
_BLOCKS = 60
_PREFIX = "transformer."

_COMPOSE, _STRENGTH, _SWITCH, _BACK, _RESET = "compose A", "A at strength 0.5", "switch to B", "back to A", "reset"
_AFTER: dict[str, tuple[str, float] | None] = {
    _COMPOSE: ("A", 1.0),
    _STRENGTH: ("A", 0.5),
    _SWITCH: ("B", 1.0),
    _BACK: ("A", 1.0),
    _RESET: None,
}


class Way(Protocol):
    """How adapters get into one model and out again."""

    name: str

    def compose(self, adapters: Sequence[tuple[Path, float]]) -> None: ...
    def set_strength(self, path: Path, strength: float) -> None: ...
    def reset(self) -> None: ...


class LoraMmap:
    name = OURS

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def compose(self, adapters: Sequence[tuple[Path, float]]) -> None:
        report = lora_mmap.compose_loras_v2(self._model, list(adapters))
        if not report:
            raise AssertionError(f"{OURS}: no module took the adapter")

    def set_strength(self, path: Path, strength: float) -> None:
        lora_mmap.set_lora_strength_v2(self._model, strength)

    def reset(self) -> None:
        lora_mmap.reset_lora_v2(self._model)


@dataclass(frozen=True)
class Size:
    variant: str
    blocks: int
    width: int


@case("quantised")
def run(settings: Settings) -> CaseResult:
    sizes = [
        Size("small width", 6 if settings.quick else _BLOCKS, 256),
        Size("real width", 1 if settings.quick else 4, _REAL_WIDTH),
    ]
    result = CaseResult(
        "quantised",
        "Qwen-Image's blocks as Nunchaku quantises them (8 SVDQuant modules each, base rank 32, bfloat16), on the CPU; "
        f"two adapters of rank {_RANK} on the 12 Linears that these are in diffusers, q, k and v apart. "
        + "; ".join(f"{size.variant}: {size.blocks} blocks of width {size.width}" for size in sizes)
        + ". The steps follow one another as in the table.",
        notes=[
            f"{OURS}: compose_loras_v2, set_lora_strength_v2, reset_lora_v2; clear_lora_cache() before every script",
            f"{nunchaku_loader.NAME}: written here from the published version; it reads the file with load_file, "
            "unpacks, extends and packs every branch, and composes again for another strength",
            "what the branches compute is checked after every step of a first run, and their bytes after its reset",
            "modulations (AWQ) are left out of the adapters: the loader leaves them alone unless asked",
            f"`{_PLAN}`: before the first byte of a factor is read. The loader: the keys of the file through its "
            "expressions, and no more",
        ],
    )
    for size in sizes:
        _measure(result, settings, size)
    _measure_planning(result, settings)
    return result


def _measure(result: CaseResult, settings: Settings, size: Size) -> None:
    """Every contender has a model of its own, with the same values: each keeps its state on it."""
    models = [_model(size) for _ in range(2)]
    linears = unfused(svdq_linears(models[0]))
    paths = {
        name: write_diffusers(settings.scratch / f"{size.width}-{name}.safetensors", linears, _RANK, seed, _PREFIX)
        for seed, name in enumerate("AB", 1)
    }
    loader = NunchakuLoader(svdq_linears(models[1]))
    loader.tune(paths["A"])
    ways: list[Way] = [LoraMmap(models[0]), loader]
    result.facts.setdefault("threads_of_the_loader", {})[size.variant] = loader.threads
    result.notes.append(
        f"{size.variant}: {loader.name} is fastest with {loader.threads} thread(s), and runs with those"
    )
    for way, model in zip(ways, models, strict=True):
        progress(f"  warm-up  {size.variant}: {way.name}")
        branches = Branches(svdq_linears(model), paths, _PREFIX)
        for step, work in _steps(way, paths).items():
            work()
            branches.require(f"{way.name}, {step}", _AFTER[step])
    _require_report(models[0], paths["A"])
    scripts = [Script(way.name, _steps(way, paths)) for way in ways]
    samples = interleave_scripts(scripts, settings.rounds(full=11, quick=3), before_each=_forget_adapters)
    modules = len(svdq_linears(models[0]))
    for step, found in samples.items():
        result.add(f"{size.variant}: {step}", found, {})
        _judge(result, f"{size.variant}: {step}", found, modules)


def _model(size: Size) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return NunchakuQwenImageTransformer2DModel(size.blocks, size.width)


def _steps(way: Way, paths: Mapping[str, Path]) -> dict[str, Callable[[], object]]:
    return {
        _COMPOSE: lambda: way.compose([(paths["A"], 1.0)]),
        _STRENGTH: lambda: way.set_strength(paths["A"], 0.5),
        _SWITCH: lambda: way.compose([(paths["B"], 1.0)]),
        _BACK: lambda: way.compose([(paths["A"], 1.0)]),
        _RESET: way.reset,
    }


def _forget_adapters() -> None:
    lora_mmap.clear_lora_cache()


def _require_report(model: nn.Module, path: Path) -> None:
    """The report has every quantised module."""
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)]).to_dict()
    lora_mmap.reset_lora_v2(model)
    missing = svdq_linears(model).keys() - report["modules"].keys()
    if missing:
        raise AssertionError(f"{OURS}: {len(missing)} modules are not in the report, among them {min(missing)}")


def _judge(result: CaseResult, what: str, samples: Mapping[str, Samples], modules: int) -> None:
    """Microseconds a module, and that we are not the slower one."""
    ours, theirs = (samples[name].spread() for name in (OURS, nunchaku_loader.NAME))
    ratio = theirs.median / ours.median
    each = {name: found.spread().median / modules * 1e6 for name, found in samples.items()}
    figures = ", ".join(f"{name} {microseconds:.1f} us" for name, microseconds in each.items())
    result.summary.append((f"{what}, per module", f"{figures}: {ratio:.1f} x"))
    result.facts.setdefault("microseconds_per_module", {})[what] = each
    result.goals.append(Goal(f"{what}: not slower than {nunchaku_loader.NAME}", f"{ratio:.1f} x", ratio >= 1))


_PLAN = "planning alone"


def _measure_planning(result: CaseResult, settings: Settings) -> None:
    """For the real model, on the meta device; an adapter of rank 1, whose factors nobody reads."""
    model = NunchakuQwenImageTransformer2DModel(_BLOCKS, _REAL_WIDTH, "meta")
    modules = svdq_linears(model)
    path = write_diffusers(settings.scratch / "plan.safetensors", unfused(modules), 1, 0, _PREFIX)
    outcomes = {key: found["outcome"] for key, found in lora_mmap.check(model, path).to_dict()["keys"].items()}
    keys = safetensors_files.keys(path)
    if set(outcomes.values()) != {"applied"} or not len(outcomes) == len(nunchaku_loader.classify(keys)) == len(keys):
        raise AssertionError(f"not all of {len(keys)} keys have a place in the quantised model")

    def ours() -> dict[str, float]:
        lora_mmap.check(model, path)
        return {}

    def theirs() -> dict[str, float]:
        nunchaku_loader.classify(safetensors_files.keys(path))
        return {}

    contenders = [Contender(OURS, ours), Contender(nunchaku_loader.NAME, theirs)]
    samples = interleave(contenders, settings.rounds(full=15, quick=5))
    what = f"{_PLAN}, {_BLOCKS} blocks of width {_REAL_WIDTH}"
    result.add(what, samples, {})
    _judge(result, what, samples, len(modules))
