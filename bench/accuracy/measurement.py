"""One adapter at one dtype: what lora_mmap makes of it, what its peer does, and how far both are from the formula."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping

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


def fused(written: Written, pristine: nn.Module, strength: float = 1.0) -> Mapping[str, Tensor]:
    """What lora_mmap makes of a copy of ``pristine``; no key of the adapter may be left over."""
    model = copy.deepcopy(pristine)
    lora_mmap.compose(model, [(written.source, strength)], strict=True)
    return model.state_dict()


def merged(written: Written, pristine: nn.Module, strength: float = 1.0) -> Mapping[str, Tensor]:
    """What the peer makes of a copy of ``pristine``."""
    return written.merged(copy.deepcopy(pristine), strength)


def errors(
    written: Written, pristine: nn.Module, weights: Mapping[str, Tensor], strength: float = 1.0
) -> dict[str, Error]:
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
