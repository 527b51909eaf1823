"""Independent checks: float64 arithmetic for the values, SHA-256 for the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

_ROWS = 1024  # rows per step: bounds the float64 copies


def digest(model: nn.Module) -> str:
    """SHA-256 over the bytes of all parameters, in order."""
    sha = hashlib.sha256()
    for parameter in model.parameters():
        sha.update(parameter.detach().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


Term = tuple[torch.Tensor, torch.Tensor, float]  # up, down, scale


def excess(weight: torch.Tensor, base: torch.Tensor, terms: Sequence[Term]) -> float:
    """The largest error against float64, as a multiple of what the contract allows; at most 1 is right.

    Allowed per element: one unit in the last place of the result (the one rounding) plus R * 2^-24 * sum of the
    magnitudes of all products (fp32 accumulation over the total rank R).
    """
    worst = 0.0
    rank = sum(down.shape[0] for _, down, _ in terms)
    rows = weight.shape[0]
    flat, flat_base = weight.detach().reshape(rows, -1), base.detach().reshape(rows, -1)
    for begin in range(0, rows, _ROWS):
        part = slice(begin, begin + _ROWS)
        exact = flat_base[part].double()
        magnitude = torch.zeros_like(exact)
        for up, down, scale in terms:
            b, a = up.reshape(rows, -1)[part].double() * scale, down.flatten(1).double()
            exact += b @ a
            magnitude += b.abs() @ a.abs()
        got = flat[part].double()
        allowed = _ulp(got, weight.dtype) + rank * 2.0**-24 * magnitude
        worst = max(worst, float(((got - exact).abs() / allowed).max()))
    return worst


def _ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp_min(info.smallest_normal)).exponent - 1
    return torch.ldexp(torch.full_like(values, info.eps), exponent)
