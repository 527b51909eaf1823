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
    items = _without_ellipsis(list(index) if isinstance(index, tuple) else [index], len(shape))
    picked = [_item(item, position, shape) for position, item in enumerate(items)]
    what = f"Error during slicing [{', '.join(map(_text, picked))}] with shape {list(shape)}"
    if len(picked) > len(shape):
        raise TensorError(f"{what}: more slicing indexes than dimensions in tensor")
    picked += [slice(None)] * (len(shape) - len(picked))
    backwards = [_within(picked[dim], shape[dim], dim, what) for dim in reversed(range(len(shape)))]
    return backwards[::-1]  # of several that are out of bounds, safetensors names the last


def _without_ellipsis(items: list[Any], rank: int) -> list[Any]:
    places = [place for place, item in enumerate(items) if item is Ellipsis]
    if len(places) > 1:
        raise TensorError("Only one ellipsis (...) is allowed in slice index")
    for place in places:
        items[place : place + 1] = [slice(None)] * (rank - len(items) + 1)
    return items


def _item(item: Any, position: int, shape: tuple[int, ...]) -> int | slice:
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
    size = shape[position] if position < len(shape) else 0
    if number < -size:
        raise TensorError(f"Invalid index {number} for dimension {position} of size {size}")
    return number + size * (number < 0)


def _within(item: int | slice, size: int, dim: int, what: str) -> int | slice:
    if isinstance(item, int):
        if item >= size:
            raise _out_of_bounds(item, size, dim, what)
        return item
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
    bounds = (item.start, item.stop) if item.step in (None, 1) else (item.start, item.stop, item.step)
    return ":".join("" if bound is None else str(bound) for bound in bounds)


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
