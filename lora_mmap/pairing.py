"""From classified tensors to factor pairs. Depends on the file alone, so it is done once per adapter."""

from __future__ import annotations

import math
from typing import NamedTuple

from .adapter import Adapter
from .algorithms import Recognised, recognise, title
from .algorithms.formula import Matrix, product
from .algorithms.members import Malformed
from .algorithms.scaling import ALPHA_KEY, Scaling

__all__ = ["Pair", "Recognised", "pair_up"]


class Pair(NamedTuple):
    """The factors of one module: ``down`` (A, [rank, cols]) and ``up`` (B, [rows, rank]), as tensor indices.

    Convolutions are flattened: ``cols`` is in_channels * kernel elements. ``scale`` is alpha / rank (rsLoRA: alpha /
    sqrt(rank)), without the user's strength; ``scale_source`` says where alpha came from.
    """

    group: int
    down: int
    up: int
    rows: int
    cols: int
    rank: int
    scale: float
    scale_source: str

    @property
    def tensors(self) -> tuple[int, int]:
        """The tensors of the file that it takes."""
        return self.down, self.up

    @property
    def matrix(self) -> Matrix:
        """The same as a formula has it."""
        return product(self.down, self.up, self.rows, self.cols, self.rank)

    @property
    def is_nothing(self) -> bool:
        """True when it changes no weight, whatever its tensors hold."""
        return self.scale == 0

    @property
    def scratch_nbytes(self) -> int:
        return 0

    @property
    def n_made(self) -> int:
        return 0


def pair_up(adapter: Adapter) -> list[Pair | Recognised]:
    """One entry per group of ``adapter``, in the same order. Of tensors, reads alphas and (IA)3's flags."""
    if adapter.pairs is None:
        adapter.pairs = _Pairing(adapter).run()
    return adapter.pairs


class _Pairing:
    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.scaling = Scaling(adapter)

    def run(self) -> list[Pair | Recognised]:
        plain = self.adapter.classification.pairs()
        simple = not self.adapter.metadata.configs and not self.scaling.loose_alphas
        alphas = self.scaling.alphas
        pairs: list[Pair | Recognised] = []
        for group, found in enumerate(plain):
            if found is None:
                pairs.append(recognise(self.scaling, group, self.adapter.groups[group]))
                continue
            down, up, alpha, rows, cols, rank = found
            if alpha >= 0 and simple:
                scale = alphas[alpha] / rank
                if math.isfinite(scale):
                    pairs.append(Pair(group, down, up, rows, cols, rank, scale, ALPHA_KEY))
                    continue
            pairs.append(self._scaled(group, *found))
        return pairs

    def _scaled(self, index: int, down: int, up: int, alpha: int, rows: int, cols: int, rank: int) -> Pair | Recognised:
        """The pair with its alpha, wherever that is written."""
        group = self.adapter.groups[index]
        config = self.scaling.config(group)
        try:
            scale, source = self.scaling.of(group, alpha, rank)
        except Malformed as error:
            return Recognised(index, "malformed", str(error), "lora", rank)
        if config is not None and config.obstacle:
            algorithm = "dora" if config.use_dora else "lora"
            reason = f"{title(algorithm)}, says {config.source}: {config.obstacle}"
            return Recognised(index, "unsupported", reason, algorithm, rank, scale, source, {"weight": (rows, cols)})
        return Pair(index, down, up, rows, cols, rank, scale, source)
