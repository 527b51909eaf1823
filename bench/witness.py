"""Whether a contender did the work: a few rows of a model's weights beside what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

_EVERY = 16  # of the Linears, one is looked at


class Witness:
    """Knows the first row of some Linears, as it is now, and what each adapter adds to it, in float64.

    Adapters are of scale 1, with the keys of :func:`.adapters.write_diffusers`.
    """

    def __init__(self, modules: Mapping[str, nn.Linear], adapters: Mapping[str, Path]) -> None:
        self._weights = {name: modules[name].weight.detach() for name in list(modules)[::_EVERY]}
        self._pristine = self._rows()
        self._deltas = {name: self._delta(path) for name, path in adapters.items()}

    def require(self, who: str, strengths: Mapping[str, float]) -> None:
        """Raises AssertionError where the weights are nearer to what they were than to what these adapters make of
        them. A contender that does not bring weights back exactly may be off by roundings."""
        change = sum((strength * self._deltas[name] for name, strength in strengths.items()), torch.zeros(()))
        off = float((self._rows() - self._pristine - change).norm() / change.norm())
        if not off < 0.5:
            raise AssertionError(f"{who}: the weights are {off:.2g} of the change away from {dict(strengths)}")

    def _rows(self) -> Tensor:
        return torch.cat([weight[0].double() for weight in self._weights.values()])

    def _delta(self, path: Path) -> Tensor:
        with safe_open(str(path), framework="pt") as file:
            pairs = [
                [file.get_tensor(f"unet.{name}.lora_{side}.weight").double() for side in "BA"] for name in self._weights
            ]
        return torch.cat([up[0] @ down for up, down in pairs])
