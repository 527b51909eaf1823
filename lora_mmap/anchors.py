"""The memory of weights while a transaction may write to it, whatever becomes of the parameters meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from . import _C
from .cuda import from_torch
from .geometry import Geometry
from .weight_forms import refusal_of


class Anchors:
    """Keeps the storages of weights alive: memory that somebody freed is somebody else's, and must not be written."""

    def __init__(self, weights: Iterable[Geometry]) -> None:
        self._held = {geometry.address: (geometry, geometry.weight.detach()) for geometry in weights}

    def let_go(self) -> None:
        """Nothing is written any more."""
        self._held.clear()

    def carry_over(self, addresses: Iterable[int] | None = None) -> None:
        """Copies what these weights (all by default) hold to where their parameters have been moved since: what was
        moved is what was there before the last writes."""
        wanted = self._held if addresses is None else addresses
        for address in wanted:
            geometry, tensor = self._held[address]
            parameter = geometry.weight.data
            if refusal_of(parameter) or parameter.is_meta or parameter.shape != tensor.shape:
                continue  # nothing can be brought there
            if parameter.untyped_storage()._cdata != tensor.untyped_storage()._cdata:
                _wait_for(geometry.device)
                parameter.copy_(tensor)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        _C.cuda_event(device.index, from_torch.current_stream(device)).wait()
