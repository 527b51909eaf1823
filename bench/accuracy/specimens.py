"""An adapter as a peer wrote it, the layers it is for, and what the peer makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .reference import NO_SETTINGS, Layer, Settings, Use

# The weights that a peer makes, by their names in the model; it may change the model that it is given.
Merge = Callable[[nn.Module, float], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Written:
    """``stems``: what the keys of a module begin with, by the module's name. ``source`` is what ``compose`` takes."""

    base: nn.Module
    source: Path
    tensors: Mapping[str, Tensor]
    stems: Mapping[str, str]
    merged: Merge
    settings: Mapping[str, Settings] = field(default_factory=dict)

    def use(self, module: str, strength: float) -> Use:
        """The tensors of one module, by the ending of their keys."""
        stem = self.stems[module] + "."
        own = {key.removeprefix(stem): tensor for key, tensor in self.tensors.items() if key.startswith(stem)}
        return Use(own, strength, self.settings.get(module, NO_SETTINGS))


@dataclass(frozen=True)
class Specimen:
    """One row of the table: ``tensors`` are those of a module in short. ``any_strength``: the peer means the same by
    strengths other than 1."""

    algorithm: str
    peer: str
    tensors: str
    write: Callable[[Path], Written]
    any_strength: bool = True
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer}: {self.algorithm}"


def layer_of(model: nn.Module, module: str) -> Layer:
    """The parameters of a layer as they are now."""
    found = model.get_submodule(module)
    return Layer(dict(found.named_parameters(recurse=False)), transposed=type(found).__name__ == "Conv1D")


def tensors_in(path: Path) -> Mapping[str, Tensor]:
    return load_file(str(path))


def at_random(tensor: Tensor, generator: torch.Generator, size: float = 0.3) -> None:
    """Fills a factor."""
    tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * size)


def near_itself(tensor: Tensor, generator: torch.Generator) -> None:
    """Moves the magnitudes of a DoRA away from the norms that they start as."""
    tensor.mul_(1 + 0.2 * torch.randn(tensor.shape, generator=generator, dtype=torch.float32))
