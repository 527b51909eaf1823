"""The weights of a model as they are now: which can be fused into, where they lie, and why not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .cuda import from_torch
from .errors import ModelError
from .geometry import Geometry, overlap
from .model_index import WEIGHT_NAMES, IndexedWeight, ModelIndex
from .tensor_source import dtype_name

_FUSABLE = {torch.float16: 2, torch.bfloat16: 2, torch.float32: 4, torch.float64: 8}


class ModelWeights:
    """The index of one model with the present form of its weights, looked at when first needed and kept while true."""

    def __init__(self, model: nn.Module) -> None:
        self.index = ModelIndex(model)
        self._looks: list[Geometry | str | None] = [None] * len(self.index.weights)
        self._places: dict[tuple[int, str], Geometry | str | None] = {}  # of all other parameters, for one plan
        self._parameters = [entry.parameters for entry in self.index.weights]
        self._keys = [entry.key for entry in self.index.weights]
        self._forms: list[list[Any]] = []
        self.has_overlaps = False
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
        looks = list(map(self._writable, range(len(self._looks))))
        self.index.names.set_forms([() if geometry is None else _form(geometry) for geometry in looks])
        geometries = [geometry for geometry in looks if geometry is not None]
        within_reach = [geometry for geometry in geometries if geometry.within_reach]
        self.all_within_reach = len(within_reach) == len(geometries)
        self.has_overlaps = overlap(within_reach) is not None

    def _writable(self, position: int) -> Geometry | None:
        try:
            look = self.look(position)
        except ModelError:  # no kernel can write to it: an error only for whoever wants to
            return None
        return look if isinstance(look, Geometry) else None

    def _geometries(self) -> list[Geometry]:
        return [g for g in map(self._writable, range(len(self._looks))) if g is not None]

    def look(self, position: int) -> Geometry | str:
        """The geometry of the weight with this number in the index, or why it cannot be fused into.

        Raises ModelError for storage that no kernel can write to.
        """
        if position >= len(self._looks):
            return refusal(self.index.entry(position)) or ""
        known = self._looks[position]
        if known is None:
            entry = self.index.weights[position]
            known = self._looks[position] = refusal(entry) or geometry_of(entry)
        return known

    def place(self, position: int, parameter: str) -> Geometry | str | None:
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
            known: Geometry | str | None = None
            if value is not None:
                known = _refusal_of(value) or geometry_of(entry, key)
            self._places[position, key] = known
        return self._places[position, key]

    def extent(self, position: int, parameter: str) -> tuple[int, int] | None:
        """Rows and columns of a parameter of the module with this number, whatever it is; None where there is none."""
        entry = self.index.entry(position)
        key = _key(entry, parameter)
        value = None if key is None else entry.parameters.get(key)
        if value is None:
            return None
        shape = value.shape
        if entry.transposed and len(shape) == 2:
            return shape[1], shape[0]
        return (shape[0] if shape else 1), math.prod(shape[1:])

    def by_address(self, wanted: Iterable[int]) -> dict[int, list[Geometry]]:
        """The fusable weights by their present address, and what else there is while some ``wanted`` address is not
        among them; views of one storage may share it."""
        places: dict[int, list[Geometry]] = {}
        for geometry in self._geometries():
            if geometry.within_reach:
                places.setdefault(geometry.address, []).append(geometry)
        if any(address not in places for address in wanted):
            for geometry in self._other_geometries():
                places.setdefault(geometry.address, []).append(geometry)
        return places

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


def _form(geometry: Geometry) -> tuple[int, ...]:
    """The shape as an adapter sees it: transformers' Conv1D keeps the transpose."""
    return (geometry.rows, geometry.cols) if len(geometry.shape) == 2 else tuple(geometry.shape)


def _forms(tensors: list[torch.Tensor]) -> list[list[Any]]:
    """Address, strides, shape and dtype of each, in lists."""
    try:
        return [
            list(map(torch.Tensor.data_ptr, tensors)),
            list(map(torch.Tensor.stride, tensors)),
            list(map(attrgetter("shape"), tensors)),
            list(map(attrgetter("dtype"), tensors)),
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
    return _refusal_of(weight)


def _refusal_of(weight: torch.Tensor) -> str | None:
    data = weight.data
    if type(data) is not torch.Tensor or data.layout is not torch.strided:
        return f"its weight is a {type(data).__name__} of layout {data.layout}, expected a plain dense tensor"
    if not data.numel():
        return f"its weight is empty: shape {list(data.shape)}"
    if data.dtype not in _FUSABLE:
        return (
            f"its weight has dtype {data.dtype}; weights are fused into at float16, bfloat16, float32 and float64 only"
        )
    return None


def geometry_of(entry: IndexedWeight, key: str | None = None) -> Geometry:
    """Describes a weight for which :func:`refusal` found nothing, or another parameter of its module. A vector is one
    column."""
    weight = entry.parameters[key or entry.key]
    parameter = "" if entry.is_parameter else key or entry.key
    shape, strides = weight.shape, weight.stride()
    dtype = dtype_name(weight.dtype)
    assert dtype is not None
    itemsize = _FUSABLE[weight.dtype]
    address = weight.data_ptr()
    device = from_torch.device_of(weight)
    place = (entry.name, weight, address)
    if len(shape) < 2:
        rows, stride = (shape[0], strides[0]) if shape else (1, 1)
        return Geometry(*place, rows, 1, stride, 1, itemsize, dtype, shape, device, parameter=parameter)
    if weight.is_contiguous() and not entry.transposed:
        cols = math.prod(shape[1:])
        return Geometry(*place, shape[0], cols, cols, 1, itemsize, dtype, shape, device, parameter=parameter)
    if len(shape) == 2:
        rows, cols = shape
        row_stride, col_stride = strides
        if entry.transposed:
            rows, cols, row_stride, col_stride = cols, rows, col_stride, row_stride
        column_map = None
    else:
        rows, cols = shape[0], math.prod(shape[1:])
        row_stride, col_stride = strides[0], 1
        column_map = _memory_order(entry, weight)
    result = Geometry(
        *place,
        rows,
        cols,
        row_stride,
        col_stride,
        itemsize,
        dtype,
        shape,
        device,
        column_map,
        parameter,
    )
    _refuse_self_overlap(result)
    return result


def _memory_order(entry: IndexedWeight, weight: torch.Tensor) -> npt.NDArray[np.int32]:
    """The flattened input index of each element of one output channel, in memory order."""
    inner = [d for d in range(1, weight.dim()) if weight.shape[d] > 1]
    order = sorted(inner, key=weight.stride, reverse=True)
    expected = 1
    for dim in reversed(order):
        if weight.stride(dim) != expected:
            raise ModelError(
                f"[compose] weight '{entry.name}' of shape {list(weight.shape)} has strides "
                f"{list(weight.stride())}, expected each output channel to be one dense block"
            )
        expected *= weight.shape[dim]
    flat = np.arange(expected, dtype=np.int32).reshape([weight.shape[d] for d in inner])
    return np.ascontiguousarray(flat.transpose([inner.index(d) for d in order]).ravel())


def _refuse_self_overlap(geometry: Geometry) -> None:
    axes = [(geometry.row_stride, geometry.rows), (geometry.col_stride, geometry.cols)]
    (small, count), (large, outer) = sorted(axes, key=lambda axis: axis[0])
    if (small == 0 and count > 1) or (outer > 1 and large <= small * (count - 1)):
        raise ModelError(
            f"[compose] weight '{geometry.path}': rows {geometry.rows} with stride {geometry.row_stride}, "
            f"columns {geometry.cols} with stride {geometry.col_stride} share elements, expected one place per element"
        )
