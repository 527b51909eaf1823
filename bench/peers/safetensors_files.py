"""safetensors itself, as the two things that a loader is asked for: names, and all tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def keys(path: Path) -> list[str]:
    """Parses the header and nothing else; no loader can do less."""
    with safe_open(str(path), framework="pt") as file:
        return list(file.keys())


def load(path: Path, backend: str) -> dict[str, torch.Tensor]:
    return load_file(path, backend=backend)


def one_by_one(path: Path) -> dict[str, torch.Tensor]:
    """As ComfyUI loads files."""
    with safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a handle, not a dict
