"""The same sums in float64, and how far from them one rounding and the fp32 accumulation may end.

|W' - ref| <= ulp(W') + R * eps * sum |terms|, elementwise, with eps = 2^-24 (float64 weights: 2^-53) and R the rank of
all adapters together on that row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .small_model import Adapter, targets

# Significand bits, and the exponent of the smallest spacing.
_SPACING = {torch.float16: (11, -24), torch.bfloat16: (8, -133), torch.float32: (24, -149), torch.float64: (53, -1074)}


@dataclass(frozen=True)
class Errors:
    """``of_bound``: the largest error as a fraction of what is allowed. ``relative``: ||W' - ref|| / ||ref||."""

    of_bound: float
    relative: float


class Reference:
    """pristine + sum of all terms of ``adapters``, in float64 on the CPU, by weight."""

    def __init__(self, model: nn.Module, adapters: list[Adapter]) -> None:
        self._sums = {name: weight.detach().cpu().double() for name, weight in model.named_parameters()}
        self._sizes = {name: torch.zeros_like(total) for name, total in self._sums.items()}
        self._ranks = {name: torch.zeros_like(total) for name, total in self._sums.items()}
        for adapter in adapters:
            for path, (down, up) in adapter.pairs.items():
                self._add(path, down.double(), up.double(), adapter.scale)

    def _add(self, path: str, down: Tensor, up: Tensor, scale: float) -> None:
        target = targets()[path]
        name = f"{target.weight}.weight"
        a, b = down.flatten(1), up.flatten(1)
        rows = slice(target.first, target.first + target.rows)
        for into, product in (
            (self._sums, scale * (b @ a)),
            (self._sizes, abs(scale) * (b.abs() @ a.abs())),
            (self._ranks, torch.full((target.rows, a.shape[1]), float(a.shape[0]), dtype=torch.float64)),
        ):
            whole = into[name].T if target.transposed else into[name]
            whole[rows] += product.reshape(whole[rows].shape)

    def errors(self, model: nn.Module, factor: float = 1.0) -> dict[str, Errors]:
        """By weight; ``factor`` widens the accumulation's share of the bound."""
        found = {}
        for name, weight in model.named_parameters():
            value, expected = weight.detach().cpu(), self._sums[name]
            epsilon = 2.0 ** (-53 if value.dtype == torch.float64 else -24)
            bound = _ulp(value) + factor * self._ranks[name] * epsilon * self._sizes[name]
            error = (value.double() - expected).abs()
            found[name] = Errors((error / bound).max().item(), (error.norm() / expected.norm()).item())
        return found


def _ulp(values: Tensor) -> Tensor:
    """The spacing of ``values``' dtype at each of them."""
    digits, smallest = _SPACING[values.dtype]
    exponent = (torch.frexp(values.double()).exponent - digits).clamp(min=smallest)
    return torch.from_numpy(np.ldexp(1.0, exponent.numpy()))  # torch's own ldexp goes through float32
