"""One specimen at one dtype: how far lora_mmap's weights and the peer's are from the formula."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lora_mmap

from ..peers import missing
from .error import Error, measure
from .reference import composed
from .specimens import Specimen, Written, layer_of

# Peers in the order of the table: the module that writes their files, and the packages that it takes.
_PEERS = {
    "PEFT": ("peft_files", ("peft", "transformers")),
    "LyCORIS": ("lycoris_files", ("lycoris",)),
    "diffusers": ("diffusers_files", ("diffusers", "peft", "accelerate")),
}
PEERS = tuple(_PEERS)


def why_not(peer: str) -> str | None:
    """What keeps a peer from being measured here."""
    return missing(*_PEERS[peer][1])


def specimens(peer: str) -> tuple[Specimen, ...]:
    """Imports the peer."""
    found: tuple[Specimen, ...] = importlib.import_module(f".{_PEERS[peer][0]}", __package__).SPECIMENS
    return found


@dataclass(frozen=True)
class Weights:
    """The same parameters, by name: as they were, and as each of the two made them."""

    pristine: nn.Module
    ours: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]


def fuse(written: Written, dtype: torch.dtype, strength: float = 1.0) -> Weights:
    """Both merge the file into copies of the model at ``dtype``."""
    pristine = nn.Module.to(copy.deepcopy(written.base), dtype)  # diffusers' own to() warns of modules that stay fp32
    ours = copy.deepcopy(pristine)
    lora_mmap.compose(ours, [(written.source, strength)], strict=True)
    return Weights(pristine, ours.state_dict(), theirs(written, pristine, strength))


def theirs(written: Written, pristine: nn.Module, strength: float) -> Mapping[str, Tensor]:
    """What the peer makes of a copy of ``pristine``."""
    return written.merged(copy.deepcopy(pristine), strength)


def errors(written: Written, pristine: nn.Module, weights: Mapping[str, Tensor], strength: float) -> dict[str, Error]:
    """By the names of the parameters that the adapter changes."""
    found = {}
    for module in written.stems:
        layer, use = layer_of(pristine, module), written.use(module, strength)
        for parameter, (start, added) in composed(layer, [use]).items():
            name = f"{module}.{parameter}"
            found[name] = measure(weights[name], start, added)
    return found


def largest(found: Mapping[str, Error]) -> Error:
    """The worst of each figure."""
    return Error(
        max(error.ulps for error in found.values()),
        max(error.norm for error in found.values()),
        max(error.of_bound for error in found.values()),
    )
