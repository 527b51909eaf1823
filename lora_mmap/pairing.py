"""From classified tensors to factor pairs. Depends on the file alone, so it is done once per adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from .adapter import Adapter, Group
from .families.suffixes import UNSUPPORTED
from .tensor_source import FACTOR_DTYPES


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


ALPHA_KEY = "alpha key"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A group that cannot be fused. ``kind`` is ``"unsupported"`` (a known algorithm) or ``"malformed"``."""

    group: int
    kind: str
    reason: str
    algorithm: str = ""
    rank: int | None = None
    scale: float | None = None
    scale_source: str = ""
    forms: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)


def pair_up(adapter: Adapter) -> list[Pair | Recognised]:
    """One entry per group of ``adapter``, in the same order. Reads the alpha tensors, nothing else."""
    if adapter.pairs is None:
        adapter.pairs = _Pairing(adapter).run()
    return adapter.pairs


class _Pairing:
    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.suffixes = adapter.tables.suffixes
        self.alphas = adapter.alphas()
        self.loose_alphas = self._loose_alphas()

    @property
    def names(self) -> list[str]:
        return self.adapter.source.names

    def run(self) -> list[Pair | Recognised]:
        plain = self.adapter.classification.pairs()
        simple = not self.adapter.metadata.configs and not self.loose_alphas
        alphas = self.alphas
        pairs: list[Pair | Recognised] = []
        for group, found in enumerate(plain):
            if found is None:
                pairs.append(self._explain(group))
                continue
            down, up, alpha, rows, cols, rank = found
            if alpha >= 0 and simple:
                scale = alphas[alpha] / rank
                if math.isfinite(scale):
                    pairs.append(Pair(group, down, up, rows, cols, rank, scale, ALPHA_KEY))
                    continue
            pairs.append(self._scaled(group, *found))
        return pairs

    def _loose_alphas(self) -> dict[str, int]:
        """Alphas written without the adapter name that the factors of their module carry, by stem."""
        if not any(
            self.suffixes[index].pattern.find("{adapter") >= 0 for index in self.adapter.classification.suffixes
        ):
            return {}
        return {
            group.stem: group.members[0][1]
            for group in self.adapter.groups
            if not group.infix and len(group.members) == 1 and group.members[0][1] in self.alphas
        }

    def _explain(self, index: int) -> Recognised:
        """Why the native core found no plain pair in this group."""
        group = self.adapter.groups[index]
        roles: dict[str, int] = {}
        for suffix, tensor in group.members:
            entry = self.suffixes[suffix]
            if entry.algorithm not in ("", "lora") or entry.role == "mid":
                algorithm = "lora_mid" if entry.role == "mid" else entry.algorithm
                return Recognised(index, "unsupported", f"{UNSUPPORTED[algorithm]} is not supported yet")
            if entry.role in roles:
                twin = self.names[roles[entry.role]]
                return Recognised(
                    index, "malformed", f"'{twin}' and '{self.names[tensor]}' are both its {entry.role} factor"
                )
            roles[entry.role] = tensor
        down, up = roles.get("down"), roles.get("up")
        if down is None or up is None:
            return self._half(index, group, down, up)
        return Recognised(index, "malformed", self._misshapen(down, up))

    def _half(self, index: int, group: Group, down: int | None, up: int | None) -> Recognised:
        present = down if down is not None else up
        if present is None:
            if group.stem in self.loose_alphas and any(g.stem == group.stem and g.infix for g in self.adapter.groups):
                return Recognised(index, "ignored", "alpha of the module's named adapters")
            return Recognised(
                index, "malformed", f"'{self.names[group.members[0][1]]}' has neither a down nor an up factor"
            )
        missing = "up" if down is not None else "down"
        return Recognised(index, "malformed", f"'{self.names[present]}' has no {missing} factor beside it")

    def _misshapen(self, down: int, up: int) -> str:
        shapes, dtypes = self.adapter.source.shapes, self.adapter.source.dtypes
        for tensor in (down, up):
            if dtypes[tensor] not in FACTOR_DTYPES:
                expected = ", ".join(sorted(FACTOR_DTYPES))
                return f"'{self.names[tensor]}' has dtype {dtypes[tensor]}, expected one of {expected}"
            if not 2 <= len(shapes[tensor]) <= 5:
                return f"'{self.names[tensor]}' has shape {list(shapes[tensor])}, expected 2 to 5 dimensions"
        rank, other = shapes[down][0], math.prod(shapes[up][1:])
        return (
            f"'{self.names[down]}' {list(shapes[down])} has rank {rank} and '{self.names[up]}' {list(shapes[up])} has "
            f"rank {other}, expected the same rank of at least 1"
        )

    def _scaled(self, index: int, down: int, up: int, alpha: int, rows: int, cols: int, rank: int) -> Pair | Recognised:
        """The pair with its alpha, wherever that is written."""
        group = self.adapter.groups[index]
        config = self.adapter.metadata.config(self.adapter.component(group)) if self.adapter.metadata.configs else None
        if config is not None and config.use_dora:
            return Recognised(index, "unsupported", f"{UNSUPPORTED['dora']}, says {config.source}: not supported yet")
        if alpha < 0 and group.infix:
            alpha = self.loose_alphas.get(group.stem, -1)
        if alpha >= 0:
            scale, source = self.alphas[alpha] / rank, ALPHA_KEY
        else:
            path = group.stem[group.starts[-1][0] :]
            scale, source = (config.scale(path, rank) if config else None) or (1.0, "assumed (alpha = rank)")
        if not math.isfinite(scale):
            return Recognised(index, "malformed", f"alpha / rank is {scale} ({source}), expected a finite number")
        return Pair(index, down, up, rows, cols, rank, scale, source)
