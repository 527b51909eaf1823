"""The scale of a group without the user's strength: where its alpha is written, and what it is divided by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..adapter import Adapter, Group
from ..adapter_metadata import LoraConfig
from ..sharing import lazy
from .members import Malformed

ALPHA_KEY = "alpha key"
ASSUMED = "assumed (alpha = rank)"


class Scaling:
    """The alphas of one adapter. One beside the factors goes before one in a configuration; without any, scale 1."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.alphas = adapter.alphas()
        self.loose_alphas = self._loose_alphas()

    def config(self, group: Group) -> LoraConfig | None:
        """What the metadata says of the group's component."""
        metadata = self.adapter.metadata
        return metadata.config(self.adapter.component(group)) if metadata.configs else None

    def of(self, group: Group, alpha: int, rank: int) -> tuple[float, str]:
        """(scale, its source) with the alpha in tensor ``alpha`` (-1: none). Raises Malformed if it is not finite."""
        if alpha < 0 and group.infix:
            alpha = self.loose_alphas.get(group.stem, -1)
        if alpha >= 0:
            return finite(self.alphas[alpha] / rank, ALPHA_KEY)
        config = self.config(group)
        return finite(*((config.scale(group.path, rank) if config else None) or (1.0, ASSUMED)))

    @lazy
    def flags(self) -> dict[int, float]:
        """The values of (IA)3's ``on_input`` and of LyCORIS' ``scalar``, by tensor; read together."""
        source, suffixes = self.adapter.source, self.adapter.tables.suffixes
        flags = [
            tensor
            for group in self.adapter.groups
            for suffix, tensor in group.members
            if suffixes[suffix].role in ("on_input", "scalar") and math.prod(source.shapes[tensor]) == 1
        ]
        return dict(zip(flags, source.scalars(flags), strict=True))

    @lazy
    def is_checkpoint(self) -> bool:
        """True when every key ends as a model's own parameters do, and none as an adapter's."""
        suffixes = self.adapter.tables.suffixes
        used = {suffixes[index].algorithm for index in self.adapter.classification.suffixes}
        return "whole" in used and used <= {"whole", "original", "set"}

    def _loose_alphas(self) -> dict[str, int]:
        """Alphas written without the adapter name that the factors of their module carry, by stem."""
        suffixes = self.adapter.tables.suffixes
        if not self.alphas or not any(
            "{adapter" in suffixes[index].pattern for index in self.adapter.classification.suffixes
        ):
            return {}
        return {
            group.stem: group.members[0][1]
            for group in self.adapter.groups
            if not group.infix and len(group.members) == 1 and group.members[0][1] in self.alphas
        }


@dataclass(frozen=True, slots=True)
class GroupScale:
    """What scales one group: ``alpha`` is the tensor of its own, -1 for none."""

    scaling: Scaling
    group: Group
    alpha: int

    def of(self, rank: int) -> tuple[float, str]:
        return self.scaling.of(self.group, self.alpha, rank)

    @property
    def config(self) -> LoraConfig | None:
        return self.scaling.config(self.group)

    @property
    def value(self) -> float | None:
        """The alpha itself, for algorithms to which it is something else than a scale."""
        return self.scaling.alphas.get(self.alpha)


def finite(scale: float, source: str) -> tuple[float, str]:
    if not math.isfinite(scale):
        raise Malformed(f"alpha / rank is {scale} ({source}), expected a finite number")
    return scale, source
