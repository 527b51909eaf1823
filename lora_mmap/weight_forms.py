"""How a parameter lies in memory, as a matrix; and what lies so that nothing can be fused into it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from .cuda import from_torch
from .errors import ModelError
from .geometry import Geometry
from .tensor_source import dtype_name

_FUSABLE = {torch.float16: 2, torch.bfloat16: 2, torch.float32: 4, torch.float64: 8}


def refusal_of(weight: torch.Tensor) -> str | None:
    """Why a parameter cannot be fused into, whatever the factors; None if it can."""
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


def is_branchable(weight: torch.Tensor) -> bool:
    """True for a weight that cannot be fused into and that factors may be put beside: quantised, or of a kind that does
    its own arithmetic. Not for a part of one that other processes have the rest of."""
    is_whole = type(weight.data).__name__ != "DTensor" and weight.numel() > 0
    return is_whole and not weight.dtype.is_complex


def geometry_of(weight: torch.Tensor, name: str, parameter: str, transposed: bool) -> Geometry:
    """Describes a parameter for which :func:`refusal_of` found nothing. A vector is one column; a matrix that is
    ``transposed`` keeps its rows in its second dimension. Raises ModelError for storage that no kernel can write to."""
    shape, strides = weight.shape, weight.stride()
    dtype = dtype_name(weight.dtype)
    assert dtype is not None
    itemsize = _FUSABLE[weight.dtype]
    transposed = transposed and len(shape) == 2
    device = from_torch.device_of(weight)
    place = (name, weight, weight.data_ptr())
    if len(shape) < 2:
        rows, stride = (shape[0], strides[0]) if shape else (1, 1)
        return Geometry(*place, rows, 1, stride, 1, itemsize, dtype, shape, device, parameter=parameter)
    if weight.is_contiguous() and not transposed:
        cols = math.prod(shape[1:])
        return Geometry(*place, shape[0], cols, cols, 1, itemsize, dtype, shape, device, parameter=parameter)
    column_map = None
    if len(shape) == 2:
        (rows, cols), (row_stride, col_stride) = shape, strides
        if transposed:
            rows, cols, row_stride, col_stride = cols, rows, col_stride, row_stride
    else:
        rows, cols, row_stride, col_stride = shape[0], math.prod(shape[1:]), strides[0], 1
        column_map = _memory_order(weight, name)
    form = (rows, cols, row_stride, col_stride)
    result = Geometry(*place, *form, itemsize, dtype, shape, device, column_map, parameter, transposed)
    _refuse_self_overlap(result)
    return result


def again(geometry: Geometry) -> Geometry | str:
    """The same parameter as it lies now, wherever that is, or why nothing could be fused into it."""
    weight = geometry.weight
    try:
        return refusal_of(weight) or geometry_of(weight, geometry.name, geometry.parameter, geometry.transposed)
    except ModelError as error:
        return str(error)


def _memory_order(weight: torch.Tensor, name: str) -> npt.NDArray[np.int32]:
    """The flattened input index of each element of one output channel, in memory order."""
    inner = [d for d in range(1, weight.dim()) if weight.shape[d] > 1]
    order = sorted(inner, key=weight.stride, reverse=True)
    expected = 1
    for dim in reversed(order):
        if weight.stride(dim) != expected:
            raise ModelError(
                f"[compose] weight '{name}' of shape {list(weight.shape)} has strides "
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
