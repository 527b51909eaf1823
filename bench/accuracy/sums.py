"""Values in extended precision, beside what bounds the error of evaluating them in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 80 bits on x86, 128 on AArch64: rounding errors of the reference itself do not show, not even for float64 weights.
Array = NDArray[np.longdouble]


@dataclass(frozen=True)
class Sum:
    """A sum of products. ``magnitude`` is the same sum over absolute values, ``roundings`` the most that one of its
    terms goes through when it is evaluated in order with fma: |error| <= roundings * eps * magnitude."""

    value: Array
    magnitude: Array
    roundings: int

    def __matmul__(self, down: Sum) -> Sum:
        """``p = fma(up, down, p)`` over the rank."""
        rank = self.value.shape[1]
        return self._with(self.value @ down.value, self.magnitude @ down.magnitude, down.roundings + rank)

    def __mul__(self, other: Sum) -> Sum:
        """Element by element, or by one number."""
        return self._with(self.value * other.value, self.magnitude * other.magnitude, other.roundings + 1)

    def __add__(self, other: Sum) -> Sum:
        return self._with(self.value + other.value, self.magnitude + other.magnitude, other.roundings)

    def kron(self, other: Sum) -> Sum:
        """Of matrices: ``[m, n] = self[m // rows, n // cols] * other[m % rows, n % cols]``."""
        return self._with(
            np.kron(self.value, other.value), np.kron(self.magnitude, other.magnitude), other.roundings + 1
        )

    def reshape(self, *shape: int) -> Sum:
        return Sum(self.value.reshape(shape), self.magnitude.reshape(shape), self.roundings)

    @property
    def T(self) -> Sum:
        return Sum(self.value.T, self.magnitude.T, self.roundings)

    def _with(self, value: Array, magnitude: Array, roundings: int) -> Sum:
        return Sum(np.asarray(value), np.asarray(magnitude), self.roundings + roundings)


def exact(tensor: Tensor) -> Array:
    """The values of a tensor of any float dtype."""
    wide = tensor.detach().to(torch.float32) if tensor.itemsize == 1 else tensor.detach()
    return np.asarray(wide.double().numpy()).astype(np.longdouble)


def given(tensor: Tensor) -> Sum:
    """A tensor of a file: no error."""
    value = exact(tensor)
    return Sum(value, np.abs(value), 0)


def scale(value: float) -> Sum:
    """A scale, computed in float64 and rounded once."""
    number = np.asarray(value, np.longdouble)
    return Sum(number, np.abs(number), 1)
