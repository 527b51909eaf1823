"""Adapters for the demo's models, in the dialects that trainers write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file


@dataclass(frozen=True)
class Dialect:
    """How a trainer spells a module's keys."""

    name: str
    prefix: str
    down: str
    up: str
    flatten: bool = False
    alpha: float | None = None

    def key(self, module: str, ending: str) -> str:
        path = module.replace(".", "_") if self.flatten else module
        return f"{self.prefix}{path}.{ending}"


KOHYA = Dialect("kohya", "lora_unet_", "lora_down.weight", "lora_up.weight", flatten=True, alpha=8.0)
PEFT = Dialect("diffusers + PEFT", "transformer.", "lora_A.weight", "lora_B.weight")
COMFYUI = Dialect("ComfyUI, PEFT adapter name", "diffusion_model.", "lora_A.default.weight", "lora_B.default.weight")
DIFFUSERS_OLD = Dialect("diffusers before PEFT", "unet.", "lora.down.weight", "lora.up.weight")

# One module's effect on a weight: (row range of the weight or None for all, up * down * alpha / rank).
Factors = tuple[torch.Tensor, torch.Tensor, float]


def write(
    path: Path,
    modules: Iterable[tuple[str, tuple[int, ...]]],
    dialect: Dialect,
    rank: int,
    dtype: torch.dtype,
    seed: int,
) -> dict[str, Factors]:
    """Saves random factors for ``modules`` (name, weight shape). Returns up, down and alpha / rank by module."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    factors: dict[str, Factors] = {}
    for module, shape in modules:
        kernel = shape[2:]
        down = torch.randn(rank, *shape[1:], generator=generator).mul_(0.05).to(dtype)
        up = torch.randn(shape[0], rank, *(1 for _ in kernel), generator=generator).mul_(0.01).to(dtype)
        tensors[dialect.key(module, dialect.down)] = down
        tensors[dialect.key(module, dialect.up)] = up
        if dialect.alpha is not None:
            tensors[dialect.key(module, "alpha")] = torch.tensor(dialect.alpha, dtype=torch.float32)
        factors[module] = (up, down, (dialect.alpha or rank) / rank)
    save_file(tensors, path)
    return factors
