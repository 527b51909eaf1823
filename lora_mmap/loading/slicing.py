"""Slices as safetensors takes them where it does not leave slicing to torch: integers, slices and one ellipsis."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..errors import TensorError

# One entry per dimension, bounds within it, steps positive.
Selection = list[int | slice]

_MAX_INT = 2**31


def select(index: Any, shape: tuple[int, ...]) -> Selection:
    """What ``index`` picks of a tensor of ``shape``. Raises TensorError (a SafetensorError) for anything else.

    Negative bounds count from the end and an empty range is empty, which safetensors 0.8 does not manage; a range that
    reaches beyond the dimension is an error there and here.
    """
    if isinstance(index, list):
        if index:
            raise TensorError("Non empty lists are not implemented")
        index = (slice(0, 0),)
    items: tuple[Any, ...] = index if isinstance(index, tuple) else (index,)
    if sum(item is Ellipsis for item in items) > 1:
        raise TensorError("Only one ellipsis (...) is allowed in slice index")
    picked: list[Any] = [item if item is Ellipsis else _item(item, position) for position, item in enumerate(items)]
    n_picked = sum(item is not Ellipsis for item in picked)
    whole: list[Any] = [slice(None)] * (len(shape) - n_picked)
    if Ellipsis in picked:
        at = picked.index(Ellipsis)
        picked[at : at + 1] = whole
        whole = []
    what = f"Error during slicing [{', '.join(map(_text, picked))}] with shape {list(shape)}"
    if len(picked) > len(shape):
        raise TensorError(f"{what}: more slicing indexes than dimensions in tensor")
    return [_within(item, size, dim, what) for dim, (item, size) in enumerate(zip(picked + whole, shape, strict=True))]


def _item(item: Any, position: int) -> int | slice:
    if isinstance(item, slice):
        bounds = [None if bound is None else operator.index(bound) for bound in (item.start, item.stop, item.step)]
        step = bounds[2]
        if step is not None and step <= 0:
            raise TensorError(f"Slice step must be a positive integer, got {step}")
        return slice(*bounds)
    try:
        number = operator.index(item)
    except TypeError:
        number = _MAX_INT
    if not -_MAX_INT <= number < _MAX_INT:
        raise TensorError(f"Unsupported slice index at position {position}: expected slice, int, or ellipsis")
    return number


def _within(item: int | slice, size: int, dim: int, what: str) -> int | slice:
    if isinstance(item, int):
        if item < -size:
            raise TensorError(f"Invalid index {item} for dimension {dim} of size {size}")
        if item >= size:
            raise _out_of_bounds(item, size, dim, what)
        return item % size
    begin = 0 if item.start is None else item.start + size * (item.start < 0)
    end = size if item.stop is None else item.stop + size * (item.stop < 0)
    if not 0 <= begin < max(size, 1):
        raise _out_of_bounds(begin, size, dim, what)
    if end > size:
        raise _out_of_bounds(end - 1, size, dim, what)
    return slice(begin, max(begin, end), item.step or 1)


def _out_of_bounds(asked: int, size: int, dim: int, what: str) -> TensorError:
    return TensorError(f"{what}: index {asked} out of bounds for tensor dimension #{dim} of size {size}")


def _text(item: int | slice) -> str:
    if isinstance(item, int):
        return str(item)
    return ":".join("" if bound is None else str(bound) for bound in (item.start, item.stop))


def leading_run(selection: Selection, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...], tuple[int | slice, ...]]:
    """The shortest run of elements that holds a selection: (first element, shape of the run, what to pick of it).

    Integers in front narrow the run, and so does the first slice after them; what follows is picked in memory.
    """
    begin = 0
    for dim, item in enumerate(selection):
        stride = math.prod(shape[dim + 1 :])
        if isinstance(item, slice):
            run = (item.stop - item.start, *shape[dim + 1 :])
            return begin + item.start * stride, run, (slice(None, None, item.step), *selection[dim + 1 :])
        begin += item * stride
    return begin, (), ()
