"""Weights that adapters are in, found again: offloading moves them to a GPU and back, to another address each time.

A weight is the same as long as it is the same parameter: its name may lead to another one by now, and its old address
to anything. That a parameter which has moved holds what was written to it shows in the hashes of its tiles, before
any of them is undone; where there are none, it may not move.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from .errors import ModelError
from .geometry import Geometry, Occupied
from .held import Held
from .model_weights import ModelWeights
from .sharing import lazy
from .weight_forms import again


class Lost(NamedTuple):
    """A weight that is out of reach; ``found`` says what there is instead, ``advice`` how it may come back."""

    held: Held
    found: str
    advice: str = "undo before converting a model"


class Whereabouts:
    """Where weights are that adapters were fused into. ``in_place`` are those that nobody moved, ``moved`` those that
    lie elsewhere on their device, as if they had been fused into there."""

    def __init__(self, held: Iterable[Held], weights: ModelWeights) -> None:
        self._weights = weights
        self.in_place: list[Held] = []
        self.moved: list[Held] = []
        self.lost: list[Lost] = []
        held = list(held)
        wanted = [parameter for one in held for parameter in _parameters(one)]
        self._present = weights.present(wanted) if held else set()
        self._still = weights.still_true() if held else set()
        for one in held:
            self._look_for(one)
        self._lose_what_meets()

    def require_all(self, function: str) -> None:
        """Raises ModelError where a weight is out of reach."""
        for held, found, advice in self.lost:
            geometry = held.geometry
            raise ModelError(
                f"[{function}] weight '{geometry.path}' was moved, converted or replaced since it was fused into: "
                f"expected {_form(geometry)}, found {found}; {advice}, or reset(model, force=True) to forget what is "
                "out of reach"
            )

    def forget(self, held: Held) -> None:
        """One that has moved, and is not to be touched."""
        self.moved.remove(held)

    def within_reach(self) -> dict[int, Held]:
        """By present address."""
        return {one.geometry.address: one for one in (*self.in_place, *self.moved)}

    def _look_for(self, held: Held) -> None:
        geometry = held.geometry
        if id(geometry.weight) not in self._present:
            if self._has_another_name(held):
                self.in_place.append(held)
            else:
                self.lost.append(Lost(held, "another parameter, or none"))
            return
        now = geometry if id(geometry) in self._still else again(geometry)
        if isinstance(now, str):
            self.lost.append(Lost(held, f"that {now}"))
        elif now.device != geometry.device:
            back = f"move it back before that, model.to('{geometry.device}')"
            self.lost.append(Lost(held, f"it on {now.device}", back))
        elif held.lies_in(geometry.weight):
            if now.same_form(geometry) and self._has_its_sharers(held, now):
                self.in_place.append(held)
            elif not now.same_form(geometry):
                self.lost.append(Lost(held, f"another view of its memory, {_form(now)}"))
        elif not now.same_elements(geometry):
            self.lost.append(Lost(held, f"{_form(now)} in another order of memory or another shape"))
        elif not held.records:
            self.lost.append(Lost(held, "it at another address, where nothing tells whether its bytes are the same"))
        elif self._has_its_sharers(held, now):
            self.moved.append(held.at(now))

    def _has_another_name(self, held: Held) -> bool:
        """True where the parameter is gone and another one has its memory."""
        geometry = held.geometry
        return held.lies_in(geometry.weight) and any(
            found.same_form(geometry) and held.lies_in(found.weight) for found in self._all.crossing(geometry)
        )

    @lazy
    def _all(self) -> Occupied:
        return Occupied(self._weights.everything())

    def _has_its_sharers(self, held: Held, now: Geometry) -> bool:
        """False, and it is lost, where a parameter of the model that shared its memory no longer does: the adapters are
        in both of them now, and what undoes them is there once."""
        for sharer in held.plan.sharers:
            if id(sharer.parameter) in self._present and _address(sharer.parameter) != now.address + sharer.offset:
                found = f"it apart from '{sharer.path}', which shared its memory"
                self.lost.append(Lost(held, found, "tie them again before that"))
                return False
        return True

    def _lose_what_meets(self) -> None:
        """Those that were put on the memory of another: what undoes both is there, what they held is not."""
        if not self.moved:
            return
        occupied = Occupied(one.geometry for one in (*self.in_place, *self.moved))
        for one in list(self.moved):
            for other in occupied.crossing(one.geometry):
                if other is not one.geometry:
                    self.moved.remove(one)
                    self.lost.append(Lost(one, f"it on the memory of '{other.path}'"))
                    break


def regions(held: Iterable[Held]) -> list[Geometry]:
    """The memory that weights with adapters in them take now, converted ones too."""
    found = []
    for one in held:
        geometry = one.geometry
        now = geometry if _address(geometry.weight) == geometry.address else again(geometry)
        if isinstance(now, Geometry):
            found.append(now)
    return found


def _address(parameter: torch.Tensor) -> int | None:
    try:
        return parameter.data_ptr()
    except RuntimeError:  # quantised and sparse ones have none
        return None


def _parameters(held: Held) -> Sequence[torch.Tensor]:
    return [held.geometry.weight, *(sharer.parameter for sharer in held.plan.sharers)]


def _form(geometry: Geometry) -> str:
    return f"{geometry.dtype} [{geometry.rows}, {geometry.cols}] on {geometry.device}"
