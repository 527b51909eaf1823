"""From classified tensors to factor pairs. Depends on the file alone, so it is done once per adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .adapter import Adapter, Group
from .families.suffixes import UNSUPPORTED
from .tensor_source import FACTOR_DTYPES


@dataclass(frozen=True, slots=True)
class Pair:
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


@dataclass(frozen=True, slots=True)
class Unfit:
    """A group that cannot be fused. ``kind`` is ``"unsupported"`` (a known algorithm) or ``"malformed"``."""

    group: int
    kind: str
    reason: str


def pair_up(adapter: Adapter) -> list[Pair | Unfit]:
    """One entry per group of ``adapter``, in the same order. Reads the alpha tensors, nothing else."""
    if adapter.pairs is None:
        adapter.pairs = _Pairing(adapter).run()
    return adapter.pairs


class _Pairing:
    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.suffixes = adapter.tables.suffixes
        self.alphas = adapter.alphas()
        self.shapes = adapter.source.shapes
        self.dtypes = adapter.source.dtypes
        self.names = adapter.source.names
        self.loose_alphas = self._loose_alphas()

    def run(self) -> list[Pair | Unfit]:
        return [self._pair(index, group) for index, group in enumerate(self.adapter.groups)]

    def _loose_alphas(self) -> dict[str, int]:
        """Alphas written without the adapter name that the factors of their module carry, by stem."""
        return {
            group.stem: group.members[0][1]
            for group in self.adapter.groups
            if not group.infix and len(group.members) == 1 and group.members[0][1] in self.alphas
        }

    def _pair(self, index: int, group: Group) -> Pair | Unfit:
        roles: dict[str, int] = {}
        for suffix, tensor in group.members:
            entry = self.suffixes[suffix]
            if entry.algorithm not in ("", "lora") or entry.role == "mid":
                algorithm = "lora_mid" if entry.role == "mid" else entry.algorithm
                return Unfit(index, "unsupported", f"{UNSUPPORTED[algorithm]} is not supported yet")
            if entry.role in roles:
                twin = self.names[roles[entry.role]]
                return Unfit(
                    index, "malformed", f"'{twin}' and '{self.names[tensor]}' are both its {entry.role} factor"
                )
            roles[entry.role] = tensor
        down, up = roles.get("down"), roles.get("up")
        if down is None or up is None:
            return self._half(index, group, down, up)
        reason = self._misshapen(down, up)
        if reason:
            return Unfit(index, "malformed", reason)
        return self._scaled(index, group, down, up, roles.get("alpha"))

    def _half(self, index: int, group: Group, down: int | None, up: int | None) -> Unfit:
        present = down if down is not None else up
        if present is None:
            if group.stem in self.loose_alphas and any(g.stem == group.stem and g.infix for g in self.adapter.groups):
                return Unfit(index, "ignored", "alpha of the module's named adapters")
            return Unfit(index, "malformed", f"'{self.names[group.members[0][1]]}' has neither a down nor an up factor")
        missing = "up" if down is not None else "down"
        return Unfit(index, "malformed", f"'{self.names[present]}' has no {missing} factor beside it")

    def _misshapen(self, down: int, up: int) -> str | None:
        down_shape, up_shape = self.shapes[down], self.shapes[up]
        for tensor, shape in ((down, down_shape), (up, up_shape)):
            if self.dtypes[tensor] not in FACTOR_DTYPES:
                return (
                    f"'{self.names[tensor]}' has dtype {self.dtypes[tensor]}, expected one of "
                    f"{', '.join(sorted(FACTOR_DTYPES))}"
                )
            if not 2 <= len(shape) <= 5:
                return f"'{self.names[tensor]}' has shape {list(shape)}, expected 2 to 5 dimensions"
        if down_shape[0] != math.prod(up_shape[1:]):
            return (
                f"ranks disagree: '{self.names[down]}' {list(down_shape)} has rank {down_shape[0]}, "
                f"'{self.names[up]}' {list(up_shape)} has rank {math.prod(up_shape[1:])}"
            )
        if not down_shape[0]:
            return f"'{self.names[down]}' has shape {list(down_shape)}: rank 0"
        return None

    def _scaled(self, index: int, group: Group, down: int, up: int, alpha: int | None) -> Pair | Unfit:
        down_shape, up_shape = self.shapes[down], self.shapes[up]
        rank = down_shape[0]
        config = self.adapter.metadata.config(self.adapter.component(group)) if self.adapter.metadata.configs else None
        if config is not None and config.use_dora:
            return Unfit(index, "unsupported", f"{UNSUPPORTED['dora']}, says {config.source}: not supported yet")
        if alpha is None and group.infix:
            alpha = self.loose_alphas.get(group.stem)
        if alpha is not None:
            scale, source = self.alphas[alpha] / rank, "alpha key"
        else:
            stem = group.stem[group.starts[-1][0] :]
            scale, source = (config.scale(stem, rank) if config else None) or (1.0, "assumed (alpha = rank)")
        if not math.isfinite(scale):
            return Unfit(index, "malformed", f"alpha / rank is {scale} ({source}), expected a finite number")
        return Pair(index, down, up, up_shape[0], math.prod(down_shape[1:]), rank, scale, source)
