"""Adapter files as trainers write them, with made-up factors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def write_diffusers(path: Path, modules: Mapping[str, nn.Linear], rank: int, seed: int, prefix: str = "unet.") -> Path:
    """As diffusers saves a model's PEFT layers: ``unet.<module>.lora_A.weight`` [rank, in], ``lora_B`` [out, rank]."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in modules.items():
        dtype = module.weight.dtype
        down = torch.randn(rank, module.in_features, generator=generator) * 0.02
        up = torch.randn(module.out_features, rank, generator=generator) * 0.02
        tensors[f"{prefix}{name}.lora_A.weight"] = down.to(dtype)
        tensors[f"{prefix}{name}.lora_B.weight"] = up.to(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata={"format": "pt"})
    return path


def write_kohya(path: Path, names: list[str], prefix: str, rows: int, cols: int) -> Path:
    """lora_down, lora_up (rank 1) and alpha for every module path, behind ``prefix``."""
    tensors = {}
    for name in names:
        tensors[f"{prefix}{name}.lora_down.weight"] = torch.zeros(1, cols)
        tensors[f"{prefix}{name}.lora_up.weight"] = torch.zeros(rows, 1)
        tensors[f"{prefix}{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, str(path), metadata={"format": "pt"})
    return path
