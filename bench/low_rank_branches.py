"""Whether a contender did the work: what some low-rank branches compute beside what they should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .peers.nunchaku_loader import unpack
from .quantised_models import SVDQW4A4Linear, parts

_EVERY = 7  # of the modules, one is looked at; the eight of a block take turns
_ROUNDING = 2.0**-7  # of a branch whose factors are rounded to bfloat16 once


class Branches:
    """The low-rank branches of a model as they are now, and what every adapter has to add to some of them.

    Adapters are of scale 1, with the keys of :func:`.adapters.write_diffusers` behind ``prefix``.
    """

    def __init__(self, modules: Mapping[str, SVDQW4A4Linear], adapters: Mapping[str, Path], prefix: str) -> None:
        self._modules, self._prefix = modules, prefix
        self._pristine = {
            name: (module.rank, module.proj_down.clone(), module.proj_up.clone()) for name, module in modules.items()
        }
        self._looked_at = list(modules)[::_EVERY]
        self._probes = {
            name: torch.randn(modules[name].in_features, 4, dtype=torch.float64) for name in self._looked_at
        }
        self._before = self._products()
        self._added = {name: self._of_file(path) for name, path in adapters.items()}

    def require(self, who: str, composed: tuple[str, float] | None) -> None:
        """Raises AssertionError where the branches are not those of one adapter at a strength, or, of None, where not
        every byte is back."""
        if composed is None:
            return self._require_pristine(who)
        adapter, strength = composed
        for name, product in self._products().items():
            expected = strength * self._added[adapter][name]
            off = float((product - self._before[name] - expected).norm() / expected.norm())
            if not off < _ROUNDING:
                raise AssertionError(f"{who}: {name} is {off:.2g} of its change away from {strength} {adapter}")

    def _require_pristine(self, who: str) -> None:
        for name, (rank, down, up) in self._pristine.items():
            module = self._modules[name]
            if module.rank != rank or not _same_bits(module.proj_down, down) or not _same_bits(module.proj_up, up):
                raise AssertionError(f"{who}: {name} is not what it was")

    def _products(self) -> dict[str, Tensor]:
        found = {}
        for name, probe in self._probes.items():
            module = self._modules[name]
            inner = unpack(module.proj_down.detach(), down=True).double() @ probe
            found[name] = unpack(module.proj_up.detach(), down=False).double() @ inner
        return found

    def _of_file(self, path: Path) -> dict[str, Tensor]:
        tensors = load_file(str(path))
        found = {}
        for name, probe in self._probes.items():
            stems = [f"{self._prefix}{part}.lora_" for part in parts(name)]
            pairs = [(tensors[f"{stem}B.weight"].double(), tensors[f"{stem}A.weight"].double()) for stem in stems]
            found[name] = torch.cat([up @ (down @ probe) for up, down in pairs])
        return found


def _same_bits(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.equal(found.view(torch.int16), expected.view(torch.int16))
