"""What a check is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import lora_mmap

from .. import small_model
from ..small_model import Adapter

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """The device that is checked, adapters for the small model, and a folder for files. On the CPU every check that has
    a meaning there passes too."""

    device: torch.device
    scratch: Path
    adapters: list[Adapter]
    quick: bool = False

    @staticmethod
    def on(device: torch.device, scratch: Path, quick: bool = False) -> Setting:
        scratch.mkdir(parents=True, exist_ok=True)
        return Setting(device, scratch, small_model.make_adapters(scratch), quick)


@dataclass(frozen=True)
class Check:
    """``run`` returns what it saw, in a few words; it raises where something is wrong."""

    name: str
    run: Callable[[Setting], str]
    needs_cuda: bool = False


def fused_on_cpu(adapters: list[Adapter]) -> dict[str, Tensor]:
    """The bytes of the small model's weights after the CPU fused ``adapters``."""
    model = small_model.build(CPU)
    lora_mmap.compose(model, small_model.entries(adapters), strict=True)
    return small_model.stored_bytes(model)


def require_bytes(model: nn.Module, expected: dict[str, Tensor], when: str) -> None:
    """Raises AssertionError naming the weights whose bytes are others."""
    found = small_model.stored_bytes(model)
    if names := small_model.differing(found, expected):
        counts = [f"{name} ({int((found[name] != expected[name]).sum())} bytes)" for name in names[:4]]
        raise AssertionError(f"{when}: {len(names)} of {len(expected)} weights differ: {', '.join(counts)}")
