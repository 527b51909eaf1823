"""The native jobs of one window, and the job of one rectangle of a weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .. import native_types
from ..geometry import Geometry
from ..terms import Rectangle, WeightPlan

ITEMSIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1}


class Place(NamedTuple):
    """Where the values of a weight lie, as a matrix; strides in elements."""

    address: int
    row_stride: int
    col_stride: int

    def at(self, row: int, col: int, itemsize: int) -> int:
        return self.address + (row * self.row_stride + col * self.col_stride) * itemsize


class Sum(NamedTuple):
    """The terms of one rectangle of a weight, to be added to its pristine values or to those at ``base``."""

    weight: WeightPlan
    rectangle: Rectangle
    terms: list[native_types.Term]
    base: Place | None

    def job(self, pristine: Place) -> native_types.Job:
        """The job that writes pristine + sum into the weight."""
        geometry = self.weight.geometry
        return job_of(geometry, place_of(geometry), self.base or pristine, self.rectangle, self.terms)


@dataclass(slots=True)
class Lowered:
    """What has to run, in this order: ``made``, which are factors and values that the others take, ``gains``, ``sums``.
    The owners are the weights that each is for."""

    made: list[native_types.Job] = field(default_factory=list)
    made_owners: list[WeightPlan] = field(default_factory=list)
    gains: list[native_types.Gains] = field(default_factory=list)
    gains_owners: list[WeightPlan] = field(default_factory=list)
    sums: dict[int, list[Sum]] = field(default_factory=dict)  # by the identity of the weight's plan


def place_of(geometry: Geometry) -> Place:
    return Place(geometry.address, geometry.row_stride, geometry.col_stride)


def compute_dtype(geometry: Geometry) -> str:
    """What sums for a weight are kept in."""
    return "F64" if geometry.dtype == "F64" else "F32"


def job_of(
    geometry: Geometry, to: Place, base: Place, rectangle: Rectangle, terms: list[native_types.Term]
) -> native_types.Job:
    (top, bottom), (left, right) = rectangle.rows, rectangle.cols
    return (
        to.at(top, left, geometry.itemsize),
        base.at(top, left, geometry.itemsize),
        bottom - top,
        right - left,
        to.row_stride,
        to.col_stride,
        base.row_stride,
        base.col_stride,
        geometry.dtype,
        terms,
    )
