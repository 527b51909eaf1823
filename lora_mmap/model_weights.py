"""The weights of a model as they are now: which can be fused into, where they lie, and why not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from .errors import ModelError
from .geometry import Geometry, Occupied, overlap
from .model_index import WEIGHT_NAMES, IndexedWeight, ModelIndex
from .targets.branch_place import BranchPlace, place_beside
from .terms import Sharer, WeightPlan
from .weight_forms import geometry_of, is_branchable, refusal_of


class ModelWeights:
    """The index of one model with the present form of its weights, looked at when first needed and kept while true."""

    def __init__(self, model: nn.Module) -> None:
        self.index = ModelIndex(model)
        self._looks: list[Geometry | BranchPlace | str | None] = [None] * len(self.index.weights)
        self._places: dict[
            tuple[int, str], Geometry | BranchPlace | str | None
        ] = {}  # of all other parameters, for one plan
        self._parameters = [entry.parameters for entry in self.index.weights]
        self._keys = [entry.key for entry in self.index.weights]
        self._forms: list[list[Any]] = []
        self.has_overlaps = False
        self.has_branches = False  # modules that factors are put beside
        self._has_shared_bytes = False  # between parameters that are not the same
        self.all_within_reach = True

    def refresh(self) -> None:
        """Forgets what was known if some weight was moved, converted, replaced or viewed differently since."""
        self._places.clear()
        weights = list(map(dict.get, self._parameters, self._keys))
        forms = _forms([weight for weight in weights if weight is not None])
        forms.append(list(map(id, weights)))
        if forms != self._forms:
            self._looks = [None] * len(weights)
            self._forms = forms
            self._announce()

    def _announce(self) -> None:
        """Tells the native core which weights are plain matrices, and whether any two share bytes."""
        looks = list(map(self._takes, range(len(self._looks))))
        self.index.names.set_forms([() if found is None else _form(found) for found in looks])
        self.has_branches = any(isinstance(found, BranchPlace) for found in looks)
        geometries = [found for found in looks if isinstance(found, Geometry)]
        within_reach = [geometry for geometry in geometries if geometry.within_reach]
        self.all_within_reach = len(within_reach) == len(geometries)
        self.has_overlaps = overlap(within_reach) is not None
        first: dict[int, torch.Tensor] = {}
        twins = any(first.setdefault(found.address, found.weight) is not found.weight for found in within_reach)
        self._has_shared_bytes = self.has_overlaps or twins

    def _takes(self, position: int) -> Geometry | BranchPlace | None:
        try:
            look = self.look(position)
        except ModelError:  # no kernel can write to it: an error only for whoever wants to
            return None
        return None if isinstance(look, str) else look

    def _geometries(self) -> list[Geometry]:
        return [found for found in map(self._takes, range(len(self._looks))) if isinstance(found, Geometry)]

    def look(self, position: int) -> Geometry | BranchPlace | str:
        """The geometry of the weight with this number in the index, the place beside it, or why there is neither.

        Raises ModelError for storage that no kernel can write to.
        """
        if position >= len(self._looks):
            return refusal(self.index.entry(position)) or ""
        known = self._looks[position]
        if known is None:
            entry = self.index.weights[position]
            refused = refusal(entry)
            known = self._looks[position] = _beside(entry, refused) if refused else _geometry(entry, entry.key)
        return known

    def place(self, position: int, parameter: str) -> Geometry | BranchPlace | str | None:
        """As :meth:`look`, for any parameter of the module with this number, biases and vectors too; None where it has
        none of this name. Until the next :meth:`refresh` the same answer is the same object."""
        entry = self.index.entry(position)
        key = _key(entry, parameter)
        if key is None:
            return None
        if key == entry.key and position < len(self._looks):
            return self.look(position)
        if (position, key) not in self._places:
            value = entry.parameters.get(key)
            known: Geometry | BranchPlace | str | None = None
            if value is not None:
                known = refusal_of(value) or _geometry(entry, key)
            self._places[position, key] = known
        return self._places[position, key]

    def extent(self, position: int, parameter: str) -> tuple[int, int] | None:
        """Rows and columns of a parameter of the module with this number, whatever it is; None where there is none."""
        entry = self.index.entry(position)
        key = _key(entry, parameter)
        if entry.bearer is not None and key == entry.key:
            look = self.look(position)
            if isinstance(look, BranchPlace):
                return look.rows, look.cols
        value = None if key is None else entry.parameters.get(key)
        if value is None:
            return None
        shape = value.shape
        if entry.transposed and len(shape) == 2:
            return shape[1], shape[0]
        return (shape[0] if shape else 1), math.prod(shape[1:])

    def present(self, wanted: Iterable[torch.Tensor]) -> set[int]:
        """The identities of the model's parameters; besides those of its matrices only while some ``wanted`` one is not
        among them."""
        found = {id(entry.weight) for entry in self.index.weights}
        if any(id(parameter) not in found for parameter in wanted):
            for entry in chain(self.index.weights, self.index.others):
                found.update(map(id, entry.parameters.values()))
        return found

    def still_true(self) -> set[int]:
        """The identities of what is known of matrices: an older answer that is among them is not out of date."""
        return {id(look) for look in self._looks if isinstance(look, Geometry)}

    def everything(self) -> Iterator[Geometry]:
        """All parameters that adapters may reach, tied ones under each name."""
        yield from (geometry for geometry in self._geometries() if geometry.within_reach)
        yield from self._other_geometries()

    def note_sharers(self, weights: Collection[WeightPlan]) -> None:
        """Has plans know which other parameters share bytes with their weights."""
        if not self._has_shared_bytes:
            matrices = {id(entry.weight) for entry in self.index.weights}
            if all(id(weight.geometry.weight) in matrices for weight in weights):
                return
        occupied = Occupied(self.everything())
        for weight in weights:
            geometry = weight.geometry
            others = {id(g.weight): g for g in occupied.crossing(geometry) if g.weight is not geometry.weight}
            weight.sharers = [Sharer(g.path, g.weight, g.address - geometry.address) for g in others.values()]

    def _other_geometries(self) -> Iterator[Geometry]:
        """Biases, vectors and parameters of their own."""
        for position in range(len(self.index.module_names)):
            for key in self.index.entry(position).parameters:
                try:
                    found = self.place(position, key)
                except ModelError:
                    continue
                if isinstance(found, Geometry) and found.within_reach:
                    yield found


def _form(found: Geometry | BranchPlace) -> tuple[int, ...]:
    """The shape as an adapter sees it: transformers' Conv1D keeps the transpose."""
    return (found.rows, found.cols) if len(found.shape) == 2 else tuple(found.shape)


def _forms(tensors: list[torch.Tensor]) -> list[list[Any]]:
    """Address, strides, shape, dtype and device of each, in lists."""
    try:
        return [
            list(map(torch.Tensor.data_ptr, tensors)),
            list(map(torch.Tensor.stride, tensors)),
            list(map(attrgetter("shape"), tensors)),
            list(map(attrgetter("dtype"), tensors)),
            list(map(attrgetter("device"), tensors)),
        ]
    except (RuntimeError, NotImplementedError):  # quantised and sparse tensors may have none of these
        return [[(tensor.shape, tensor.dtype, *_place(tensor)) for tensor in tensors]]


def _place(tensor: torch.Tensor) -> tuple[object, object]:
    try:
        return tensor.data_ptr(), tensor.stride()
    except (RuntimeError, NotImplementedError):
        return None, None


def _key(entry: IndexedWeight, parameter: str) -> str | None:
    """The place in the module's parameters that a file means by ``parameter``: other namings call some otherwise."""
    if entry.is_parameter:
        return None if parameter == "bias" else entry.key
    return entry.key if parameter in WEIGHT_NAMES else parameter


def refusal(entry: IndexedWeight) -> str | None:
    """Why this weight cannot be fused into, whatever the factors; None if it can."""
    weight = entry.weight
    if entry.refusal or weight is None:
        return entry.refusal or "it has no weight now"
    return refusal_of(weight)


def _beside(entry: IndexedWeight, refused: str) -> BranchPlace | str:
    """The place beside a weight that cannot be fused into, or why there is none."""
    module = None if entry.bearer is None else entry.bearer()
    weight = entry.weight
    if module is None or (weight is not None and not is_branchable(weight)):
        return refused
    place = place_beside(module, entry.name)
    return f"{refused}; and {place}" if isinstance(place, str) else place


def _geometry(entry: IndexedWeight, key: str) -> Geometry:
    """Of a parameter of the entry's module for which nothing was refused."""
    parameter = "" if entry.is_parameter else key
    return geometry_of(entry.parameters[key], entry.name, parameter, entry.transposed)
