"""The tensors of adapters under test, and in float64 what they add to a weight."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

KOHYA = ("lora_down.weight", "lora_up.weight")
PEFT = ("lora_A.weight", "lora_B.weight")


class Factors(NamedTuple):
    """``down`` [rank, in], ``up`` [out, rank] and perhaps the ``alpha`` that is written beside them."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None = None

    @property
    def delta(self) -> torch.Tensor:
        """alpha / rank * up @ down."""
        scale = 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return scale * (self.up.double() @ self.down.double())

    def keyed(self, stem: str, endings: tuple[str, str] = PEFT) -> dict[str, torch.Tensor]:
        """The tensors under ``stem``; the alpha key, where there is one, is ``stem.alpha``."""
        tensors = {f"{stem}.{endings[0]}": self.down, f"{stem}.{endings[1]}": self.up}
        if self.alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(float(self.alpha))
        return tensors


def factors(rows: int, cols: int, rank: int = 2, alpha: float | None = None) -> Factors:
    """Random factors, other ones at every call of a test."""
    return Factors(torch.randn(rank, cols), torch.randn(rows, rank), alpha)


def kohya(stem: str, pair: Factors) -> dict[str, torch.Tensor]:
    return pair.keyed(stem, KOHYA)


def kohya_parts(stem: str, pairs: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """The tensors of several modules; ``stem`` has ``{}`` for each one's name."""
    return {key: value for part, pair in pairs.items() for key, value in kohya(stem.format(part), pair).items()}
