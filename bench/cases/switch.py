"""Changing one's mind: another adapter, another strength, none at all. On a reduced SDXL UNet."""

from __future__ import annotations

import time
from pathlib import Path

import lora_mmap

from ..adapters import write_diffusers
from ..models import Pattern, linears, sdxl_unet
from ..peers import diffusers_peft, missing
from ..registry import Settings, case
from ..results import OURS, CaseResult
from ..timing import Contender, interleave

_RANK = 16


@case("switch")
def run(settings: Settings) -> CaseResult:
    result = CaseResult("switch", "")
    if reason := missing("diffusers"):
        result.description = "Not run."
        result.left_out.append(f"the whole case: {reason}")
        return result
    model = sdxl_unet(reduced=True)
    pattern = Pattern(model)
    modules = linears(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result.description = (
        f"A reduced SDXL UNet ({parameters / 1e9:.2f} G parameters, {len(modules)} Linears), bfloat16; two "
        f"rank-{_RANK} adapters on all of them: A from the file, B in its place, B at strength 0.5, and out again. "
        "`total` is all four."
    )
    first, second = (
        write_diffusers(settings.scratch / f"switch-{seed}" / "pytorch_lora_weights.safetensors", modules, _RANK, seed)
        for seed in (1, 2)
    )

    def ours() -> dict[str, float]:
        begin = time.perf_counter()
        lora_mmap.compose(model, [(first, 1.0)])
        composed = time.perf_counter()
        lora_mmap.compose(model, [(second, 1.0)])
        switched = time.perf_counter()
        lora_mmap.set_lora_strength_v2(model, 0.5)
        rescaled = time.perf_counter()
        lora_mmap.reset(model)
        return _stages(begin, composed, switched, rescaled)

    contenders = [Contender(OURS, ours)]
    if reason := diffusers_peft.why_not():
        result.left_out.append(f"{diffusers_peft.NAME}: {reason}")
    else:
        peer = diffusers_peft.DiffusersPeft(model)
        contenders.append(Contender(diffusers_peft.NAME, lambda: _peft(peer, first, second), pattern.restore))
    drifted: dict[str, int] = {}

    def count_drift(contender: Contender) -> None:
        drifted[contender.name] = pattern.changed(whole=True)

    samples = interleave(contenders, settings.rounds(full=5, quick=1), after_warm_up=count_drift)
    result.add("A -> B -> 0.5 B -> none", samples, {})
    result.notes = [
        f"{name}: afterwards {count} of {len(modules)} weights are not what they were"
        for name, count in drifted.items()
    ]
    if drifted[OURS]:
        raise AssertionError(f"{OURS} did not bring every byte back")
    return result


def _peft(peer: diffusers_peft.DiffusersPeft, first: Path, second: Path) -> dict[str, float]:
    begin = time.perf_counter()
    peer.load_and_fuse(first)
    composed = time.perf_counter()
    peer.replace(second)
    switched = time.perf_counter()
    peer.set_strength(0.5)
    rescaled = time.perf_counter()
    peer.unfuse_and_unload()
    return _stages(begin, composed, switched, rescaled)


def _stages(begin: float, composed: float, switched: float, rescaled: float) -> dict[str, float]:
    return {
        "compose A": composed - begin,
        "switch to B": switched - composed,
        "strength 0.5": rescaled - switched,
        "reset": time.perf_counter() - rescaled,
    }
