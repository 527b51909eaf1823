"""Adapters with random factors, written as trainers write them, and the hash that proves what became of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def write_kohya(path: Path, components: dict[str, nn.Module], rank: int, alpha: float, seed: int) -> Path:
    """Saves LoRA of the attention and feed-forward layers as sd-scripts does: flattened names, an alpha for each.

    ``components`` are by the prefix that sd-scripts has for them: ``lora_unet``, ``lora_te1``, ``lora_te2``.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for prefix, component in components.items():
        for name, layer in _projections(component):
            stem = f"{prefix}_{name.replace('.', '_')}"
            down, up = _factors(layer, rank, generator)
            tensors[f"{stem}.lora_down.weight"] = down.half()
            tensors[f"{stem}.lora_up.weight"] = up.half()
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora"})
    return path


def write_diffusers(folder: Path, components: dict[str, nn.Module], rank: int, seed: int) -> Path:
    """Saves the same as diffusers' ``save_lora_weights`` does: a folder with one file of dotted names, no alphas.

    ``components`` are by the names that the pipeline has for them: ``unet``, ``transformer``, ``text_encoder``.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for component_name, component in components.items():
        for name, layer in _projections(component):
            down, up = _factors(layer, rank, generator)
            tensors[f"{component_name}.{name}.lora_A.weight"] = down.bfloat16()
            tensors[f"{component_name}.{name}.lora_B.weight"] = up.bfloat16()
    folder.mkdir()
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
    return folder


def sha256(*components: nn.Module) -> str:
    """Of the bytes of all parameters, in order."""
    digest = hashlib.sha256()
    for component in components:
        for parameter in component.parameters():
            digest.update(parameter.detach().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _projections(component: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in component.named_modules():
        if isinstance(module, nn.Linear) and any(part in name for part in ("attn", "ff.", "mlp")):
            yield name, module


def _factors(layer: nn.Linear, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    down = torch.randn(rank, layer.in_features, generator=generator) * 0.05
    return down, torch.randn(layer.out_features, rank, generator=generator) * 0.05
