"""OneDiffX's arithmetic for adapters under names, written here from what its published version does: it needs a
compiler and an old diffusers to run, and is measured without them.

Factors are held in fp32. Fusing rounds ``W.float() + delta`` once, the deltas of all adapters added up in fp32. Undoing
rounds every delta to the weight's dtype, adds those up there and subtracts. Another choice of adapters undoes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NAME = "onediffx-arithmetic"


class OneDiffX:
    """On the Linears of one denoiser, whose names the files have behind ``unet.``."""

    name = NAME

    def __init__(self, modules: Mapping[str, nn.Linear]) -> None:
        self._weights = {name: module.weight.detach() for name, module in modules.items()}
        self._factors: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}  # by adapter and module: up, down
        self._fused: dict[str, float] = {}

    def load(self, path: Path, name: str, fuse: bool) -> None:
        tensors = load_file(str(path))
        factors = self._factors[name] = {}
        for module, weight in self._weights.items():
            up = tensors[f"unet.{module}.lora_B.weight"].float()
            down = tensors[f"unet.{module}.lora_A.weight"].float()
            factors[module] = up, down
            if fuse:
                weight.copy_((weight.float() + up @ down).to(weight.dtype))
        if fuse:
            self._fused[name] = 1.0

    def set_and_fuse(self, strengths: Mapping[str, float]) -> None:
        for module, weight in self._weights.items():
            self._subtract(module, weight)
            total = None
            for name, strength in strengths.items():
                delta = self._delta(module, name, strength)
                total = delta if total is None else total.add_(delta)
            if total is not None:
                weight.copy_((weight.float() + total).to(weight.dtype))
        self._fused = dict(strengths)

    def unfuse(self) -> None:
        for module, weight in self._weights.items():
            self._subtract(module, weight)
        self._fused = {}

    def forget(self, name: str) -> None:
        del self._factors[name]

    def _subtract(self, module: str, weight: Tensor) -> None:
        total = None
        for name, strength in self._fused.items():
            delta = self._delta(module, name, strength).to(weight.dtype)
            total = delta if total is None else total.add_(delta)
        if total is not None:
            weight -= total

    def _delta(self, module: str, name: str, strength: float) -> Tensor:
        up, down = self._factors[name][module]
        delta = torch.mm(up, down)
        return delta if strength == 1.0 else delta.mul_(strength)
