"""Adapters by name, as pipelines have them: load and fuse, switch among sets of them, other strengths, and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from ..adapters import write_diffusers
from ..by_name import ByName, LoraMmap
from ..machine import Limits
from ..memory import anonymous_nbytes, peak_anonymous, release_freed, touch_free_memory
from ..models import Pattern, linears, sdxl_unet
from ..peers import diffusers_peft, missing, onediffx
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import TOTAL, Samples, Script, interleave_scripts, progress
from ..witness import Witness

_RANK = 16
_NAMES = "PQRST"  # diffusers, looking for missing keys by name, would find A and B in lora_A and lora_B
_WHOLE = "all of them"
# Beyond this the kernels of some virtual machines start to give memory back at once, and touching it gains nothing.
_MOST_TOUCHED = 768 << 20
_MIB = 1 << 20

Strengths = Mapping[str, float]
_LOAD, _LOAD_OTHERS, _UNFUSE = "load + fuse P", "load Q R S T, not fused", "unfuse"
_SWITCHES: dict[str, Strengths] = {
    "switch to Q R": {"Q": 0.8, "R": 0.6},
    "switch to R S T": {"R": 0.7, "S": 1.1, "T": -0.4},
    "switch to P Q S T": {"P": 0.5, "Q": 0.9, "S": 0.3, "T": 1.0},
    "switch to P Q R S T": {"P": 0.6, "Q": 0.5, "R": 0.8, "S": 0.7, "T": 0.4},
    "other strengths of P Q R S T": {"P": 0.3, "Q": 0.9, "R": 0.5, "S": 1.0, "T": 0.6},
    "switch to R": {"R": 0.9},
    "another strength of R": {"R": 0.45},
}
# What every contender has in the weights after a step. After the second one not all have P there still.
_FUSED: dict[str, Strengths] = {_LOAD: {"P": 1.0}, **_SWITCHES}
_STEPS = [_LOAD, _LOAD_OTHERS, *_SWITCHES, _UNFUSE]


@case("pipelines")
def run(settings: Settings) -> CaseResult:
    result = CaseResult("pipelines", "")
    if reason := missing("diffusers"):
        result.description = "Not run."
        result.left_out.append(f"the whole case: {reason}")
        return result
    model = sdxl_unet(reduced=settings.quick)
    pattern = Pattern(model)
    modules = linears(model)
    paths = {
        name: write_diffusers(settings.scratch / f"{name}.safetensors", modules, _RANK, seed)
        for seed, name in enumerate(_NAMES)
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result.description = (
        f"{'A reduced SDXL UNet (--quick: not the real size)' if settings.quick else 'The SDXL UNet'}, "
        f"{parameters / 1e9:.2f} G parameters, bfloat16, in place of a pipeline's; {len(paths)} adapters of rank "
        f"{_RANK} on its {len(modules)} Linears ({paths['P'].stat().st_size / 1e6:.0f} MB each, in the page cache), "
        "loaded under names. The steps follow one another as in the table."
    )
    result.notes = _notes()
    ways: list[ByName] = [LoraMmap(model), onediffx.OneDiffX(modules)]
    if reason := diffusers_peft.why_not():
        result.left_out.append(f"{diffusers_peft.NAME}: {reason}")
    else:
        ways.append(diffusers_peft.DiffusersPeftByName(model))
    _try_out(result, ways, paths, pattern, Witness(modules, paths))
    _measure(result, settings, ways, paths, pattern)
    return result


def _notes() -> list[str]:
    return [
        f"{OURS}: load_lora_and_optionally_fuse, set_and_fuse_adapters, unfuse_lora; every byte is checked to be back "
        "after each script",
        f"{diffusers_peft.NAME}: load_lora_adapter, unfuse_lora + set_adapters + fuse_lora, unfuse_lora, on the UNet "
        "itself: no pipeline reads the file for it",
        f"{onediffx.NAME}: its arithmetic on tensors from safetensors' load_file, written here, without a pipeline and "
        "keys to classify; every switch subtracts what is there first",
        f"`{_LOAD_OTHERS}`: {OURS} opens and plans, and reads factors with the first switch that needs them; the "
        f"others read all of them here, and PEFT takes P out, which its next switch need not do",
        "`x ours` is the time over that of lora_mmap's same step",
        "memory is of the step: resident, so pages of files that a peer maps count where it loads; `peak anonymous "
        "memory` below is of a whole script, above the level before it, from a run of its own that is not timed",
        "weights are checked to be what they should after every step of that run, and are written anew after every "
        "peer's script",
        f"up to {_MOST_TOUCHED >> 20} MiB of free memory are touched before every script, as in the case sdxl",
    ]


def _steps(way: ByName, paths: Mapping[str, Path]) -> dict[str, Callable[[], object]]:
    first, *others = paths

    def load_others() -> None:
        for name in others:
            way.load(paths[name], name, fuse=False)

    return {
        _LOAD: lambda: way.load(paths[first], first, fuse=True),
        _LOAD_OTHERS: load_others,
        **{step: partial(way.set_and_fuse, strengths) for step, strengths in _SWITCHES.items()},
        _UNFUSE: way.unfuse,
    }


def _forget(way: ByName, names: Sequence[str]) -> None:
    for name in names:
        way.forget(name)


def _try_out(
    result: CaseResult, ways: Sequence[ByName], paths: Mapping[str, Path], pattern: Pattern, witness: Witness
) -> None:
    """Every script once, untimed: did it do the work, what memory did it take, what is left in the weights."""
    for way in ways:
        progress(f"  warm-up  {way.name}")
        release_freed()
        before = peak = anonymous_nbytes()
        for step, work in _steps(way, paths).items():
            with peak_anonymous() as seen:
                work()
            peak = max(peak, seen[0])
            if step in _FUSED:
                witness.require(f"{way.name}, {step}", _FUSED[step])
        held = anonymous_nbytes()
        drift = pattern.drift()
        _forget(way, list(paths))
        pattern.restore()
        figures = {"peak_nbytes": peak - before, "held_nbytes": held - before, "drift": drift}
        result.facts.setdefault("anonymous memory and drift", {})[way.name] = figures
        memory = f"{figures['peak_nbytes'] / _MIB:.0f} MiB, {figures['held_nbytes'] / _MIB:.0f} MiB after unfuse"
        result.summary.append((f"{way.name}: peak anonymous memory", memory))
        result.summary.append((f"{way.name}: elements that unfuse leaves with other bits", f"{drift:.2%}"))
    ours = result.facts["anonymous memory and drift"][OURS]["drift"]
    result.goals.append(Goal("unfuse_lora: every byte is back", f"{ours:.2%} of elements differ", ours == 0))


def _measure(
    result: CaseResult, settings: Settings, ways: Sequence[ByName], paths: Mapping[str, Path], pattern: Pattern
) -> None:
    limits = Limits(torch.get_num_threads())
    result.limits.append(limits)

    def after(way: ByName) -> None:
        if way.name == OURS and pattern.changed(whole=True):
            raise AssertionError(f"{OURS} did not bring every byte back")
        _forget(way, list(paths))
        pattern.restore()

    def prepare() -> None:
        if not settings.warm_allocator:
            release_freed()
        touch_free_memory(_MOST_TOUCHED)

    scripts = [Script(way.name, _steps(way, paths), partial(after, way)) for way in ways]
    samples = interleave_scripts(scripts, settings.rounds(full=3, quick=1), limits.probe, prepare)
    samples[_WHOLE] = {way.name: _sum([samples[step][way.name] for step in _STEPS]) for way in ways}
    for step, found in samples.items():
        result.add(step, found, {})
    result.facts["times ours"] = {
        way.name: {
            step: found[way.name].spread().median / found[OURS].spread().median for step, found in samples.items()
        }
        for way in ways
    }


def _median(found: Samples) -> float:
    return found.spread().median


def _sum(steps: Sequence[Samples]) -> Samples:
    """Of whole scripts, round by round. Peaks of single steps have no sum."""
    totals = zip(*(step.stages[TOTAL] for step in steps), strict=True)
    seconds = zip(*(step.cpu for step in steps), strict=True)
    return Samples({TOTAL: [sum(total) for total in totals]}, [sum(one) for one in seconds])
