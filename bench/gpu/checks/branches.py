"""Low-rank branches of quantised modules on the device: the bytes that the CPU writes, and every byte back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import lora_mmap

from ...adapters import write_diffusers
from ...quantised_models import NunchakuQwenImageTransformer2DModel, svdq_linears, unfused
from .check import CPU, Check, Setting

_WIDTH = 128


def _branches(setting: Setting) -> str:
    here, there = (_model().to(device) for device in (CPU, setting.device))
    files = [_adapter(setting.scratch, here, rank) for rank in (8, 16)]
    pristine = _tensors(there)
    steps = ([(files[1], 1.0)], [(files[0], 0.5)], [(files[0], 1.0), (files[1], -0.3)])
    for entries in steps:
        for model in (here, there):
            if not lora_mmap.compose(model, entries):
                raise AssertionError("nothing was applied")
        _require_same(there, _tensors(here), f"with {len(entries)} adapters")
    for model in (here, there):
        lora_mmap.set_lora_strength_v2(model, 0.25)
    _require_same(there, _tensors(here), "at another strength")
    lora_mmap.reset(there)
    _require_same(there, pristine, "after a reset")
    return f"{len(pristine)} tensors in {len(steps)} compositions, another strength and a reset: the CPU's bytes"


def _model() -> nn.Module:
    torch.manual_seed(0)
    return NunchakuQwenImageTransformer2DModel(blocks=1, width=_WIDTH)


def _adapter(scratch: Path, model: nn.Module, rank: int) -> Path:
    linears = unfused(svdq_linears(model))
    return write_diffusers(scratch / f"branches-{rank}.safetensors", linears, rank, seed=rank, prefix="transformer.")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.named_parameters() if "proj_" in name}


def _require_same(model: nn.Module, expected: dict[str, Tensor], when: str) -> None:
    for name, found in _tensors(model).items():
        if found.shape != expected[name].shape or not torch.equal(found, expected[name]):
            raise AssertionError(
                f"{when}: {name} {list(found.shape)} has other bytes than {list(expected[name].shape)}"
            )


CHECKS = (Check("low-rank branches", _branches),)
