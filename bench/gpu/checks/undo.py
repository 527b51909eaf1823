"""The way back: reset, many cycles, and what happens when a result is not finite."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch
from torch import nn

import lora_mmap
from lora_mmap.errors import FusionOverflowError, ModelError

from .. import small_model
from ..timing import synchronise
from .check import CPU, Check, Setting, fused_on_cpu, require_bytes

_CYCLES, _QUICK_CYCLES = 200, 20
_ON_THE_CPU = ("aligned", "unaligned", "conv_last", "fc_f32")


def _reset(setting: Setting) -> str:
    model = small_model.build(setting.device)
    pristine = small_model.stored_bytes(model)
    for adapters in (setting.adapters, setting.adapters[1:2], setting.adapters[:1]):
        lora_mmap.compose(model, small_model.entries(adapters))
    lora_mmap.set_lora_strength_v2(model, 0.3)
    if not lora_mmap.reset(model):
        raise AssertionError("reset found nothing to undo")
    require_bytes(model, pristine, "after a reset")
    return f"{len(pristine)} weights, every byte as before, padding included"


def _cycles(setting: Setting) -> str:
    """Compose, switch, another strength, reset: the same bytes in every cycle, and no memory left behind."""
    model = small_model.build(setting.device)
    first, second = setting.adapters[:1], setting.adapters[1:]
    states = [fused_on_cpu(first), fused_on_cpu(second), small_model.stored_bytes(model)]
    cycles = _QUICK_CYCLES if setting.quick else _CYCLES
    held = None
    for cycle in range(cycles):
        lora_mmap.compose(model, small_model.entries(first))
        require_bytes(model, states[0], f"cycle {cycle + 1}, composed")
        lora_mmap.compose(model, small_model.entries(second))
        require_bytes(model, states[1], f"cycle {cycle + 1}, switched")
        lora_mmap.set_lora_strength_v2(model, 0.5)
        lora_mmap.reset(model)
        require_bytes(model, states[2], f"cycle {cycle + 1}, reset")
        if setting.device.type == "cuda":
            gc.collect()
            now = torch.cuda.memory_allocated(setting.device)
            held = now if held is None else held
            if now > held:
                raise AssertionError(
                    f"cycle {cycle + 1}: {now - held} bytes of device memory more than after the first"
                )
    memory = "" if held is None else ", no device memory left behind"
    return f"{cycles} cycles of compose, switch, strength, reset: the same bytes in each{memory}"


def _without_restore(setting: Setting) -> str:
    model = small_model.build(setting.device)
    lora_mmap.compose(model, small_model.entries(setting.adapters), restore="none")
    require_bytes(model, fused_on_cpu(setting.adapters), "committed")
    if lora_mmap.reset(model):
        raise AssertionError('reset undid what restore="none" had committed')
    return "the same bytes, and nothing to reset"


def _overflow(setting: Setting) -> str:
    """Rolled back to pristine weights, and to those of the composition before."""
    model = small_model.build(setting.device)
    huge = _too_large(setting)
    for chosen in ([], setting.adapters[:2]):
        if chosen:
            lora_mmap.compose(model, small_model.entries(chosen))
        before = small_model.stored_bytes(model)
        try:
            lora_mmap.compose(model, small_model.entries([*setting.adapters, huge]))
        except FusionOverflowError as error:
            if "fc_f16" not in str(error):
                raise AssertionError(f"the message does not name the weight: {error}") from error
        else:
            raise AssertionError("a result that is not finite was accepted")
        synchronise(setting.device)
        require_bytes(model, before, "after an overflow")
    return "FusionOverflowError names the weight; every byte as before, pristine and composed"


def _foreign_write(setting: Setting) -> str:
    """The lowest bit of one element, of a weight with a journal and of one with a copy."""
    model = small_model.build(setting.device)
    pristine = small_model.stored_bytes(model)
    lora_mmap.compose(model, small_model.entries(setting.adapters[:1]))
    for name in ("aligned", "fc_f64"):
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        element = weight.detach().view(torch.uint8).view(-1)[-1:]
        element ^= 1
        before = small_model.stored_bytes(model)
        for call in (
            lambda: lora_mmap.reset(model),
            lambda: lora_mmap.compose(model, small_model.entries(setting.adapters[1:])),
        ):
            try:
                call()
            except ModelError as error:
                if name not in str(error):
                    raise AssertionError(f"the message does not name the weight: {error}") from error
            else:
                raise AssertionError(f"{name} was undone on top of what somebody else wrote")
            require_bytes(model, before, f"after a refusal for {name}")
        element ^= 1
    lora_mmap.reset(model)
    require_bytes(model, pristine, "after a reset")
    return "one bit is enough: ModelError names the weight, every byte stays; taken back, reset brings all back"


def _overgrown(setting: Setting) -> str:
    """Deltas that leave hardly a bit of the weights: no journal of a useful size holds what brings them back."""
    model = small_model.build(setting.device)
    pristine = small_model.stored_bytes(model)
    adapters = [replace(adapter, strength=40 * adapter.strength) for adapter in setting.adapters]
    report = lora_mmap.compose(model, small_model.entries(adapters))
    require_bytes(model, fused_on_cpu(adapters), "composed")
    lora_mmap.compose(model, small_model.entries(setting.adapters))
    require_bytes(model, fused_on_cpu(setting.adapters), "switched")
    lora_mmap.reset(model)
    require_bytes(model, pristine, "after a reset")
    tiers = ", ".join(f"{tier} {cost['modules']}" for tier, cost in sorted(report.restore.items()))
    return f"weights by what brings them back: {tiers}; the CPU's bytes, and every byte back"


def _two_devices(setting: Setting) -> str:
    """One model on the device and on the CPU at once: one transaction over both."""
    model = small_model.build(setting.device)
    for name in _ON_THE_CPU:
        module = model.get_submodule(name)
        assert isinstance(module.weight, torch.Tensor)
        module.weight = nn.Parameter(module.weight.detach().to(CPU), requires_grad=False)
    pristine = small_model.stored_bytes(model)
    lora_mmap.compose(model, small_model.entries(setting.adapters), strict=True)
    fused = fused_on_cpu(setting.adapters)
    require_bytes(model, fused, "composed")
    try:
        lora_mmap.compose(model, small_model.entries([setting.adapters[0], _too_large(setting)]))
    except FusionOverflowError:
        require_bytes(model, fused, "after an overflow on the device")
    else:
        raise AssertionError("a result that is not finite was accepted")
    lora_mmap.reset(model)
    require_bytes(model, pristine, "after a reset")
    return f"{len(_ON_THE_CPU)} of {len(pristine)} weights on the CPU: composed, rolled back and reset to the byte"


def _too_large(setting: Setting) -> small_model.Adapter:
    found = small_model.make_adapter(None, ["fc_f16"], 4, torch.float16, 1.0, 9)
    assert isinstance(found.source, dict)
    found.source["fc_f16.lora_A.weight"].fill_(60000)
    found.source["fc_f16.lora_B.weight"].fill_(60000)
    return found


CHECKS = (
    Check("reset", _reset),
    Check("cycles", _cycles),
    Check("restore=none", _without_restore),
    Check("overflow is rolled back", _overflow),
    Check("somebody else's writes", _foreign_write),
    Check("journals that would be too large", _overgrown),
    Check("a model on two devices", _two_devices),
)
