"""How far a weight is from the reference: against the contract's bound, and as figures for a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .sums import Array, Sum, exact

# Bits of the significand, and the exponent of the smallest subnormal.
_FORMATS = {
    torch.float16: (11, -24),
    torch.bfloat16: (8, -133),
    torch.float32: (24, -149),
    torch.float64: (53, -1074),
}


def ulp(values: Array, dtype: torch.dtype) -> Array:
    """The spacing of a dtype at each of the values."""
    precision, smallest = _FORMATS[dtype]
    exponents = np.where(values == 0, smallest, np.frexp(values)[1] - precision)
    return np.ldexp(np.asarray(1, np.longdouble), np.maximum(exponents, smallest))


def bound(weight: Tensor, added: Sum) -> Array:
    """The contract: ulp(W') + R * eps * sum |terms|, eps = 2^-24 (float64 weights: 2^-53)."""
    epsilon = np.longdouble(2.0) ** (-53 if weight.dtype == torch.float64 else -24)
    return ulp(exact(weight), weight.dtype) + added.roundings * epsilon * added.magnitude


@dataclass(frozen=True)
class Error:
    """``ulps``: the largest |W' - reference|, in units of the dtype's spacing at the reference. ``norm``: ||W' -
    reference|| / ||reference||. ``of_bound``: the largest share of the contract's bound that an element takes."""

    ulps: float
    norm: float
    of_bound: float


def measure(weight: Tensor, start: Array, added: Sum) -> Error:
    """The error of ``weight``, which should be ``start`` + ``added``."""
    wanted = start + added.value
    distance = np.abs(exact(weight) - wanted)
    if not distance.size:
        return Error(0.0, 0.0, 0.0)
    length = np.sqrt((wanted**2).sum())
    return Error(
        float((distance / ulp(wanted, weight.dtype)).max()),
        float(np.sqrt((distance**2).sum()) / length) if length else 0.0,
        float((distance / bound(weight, added)).max()),
    )
