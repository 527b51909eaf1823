"""The way of the Nunchaku Qwen-Image loader with quantised modules, written here from what its published version does:
it needs Nunchaku and a GPU to run, and is measured without them.

Keys go through a list of expressions in order. q, k and v of a fused module have to be there with equal ranks: their
down factors are stacked and their up factors set on a diagonal of blocks. A module's branch is unpacked, extended and
packed again as a whole; taking adapters out unpacks, cuts and packs. Another strength composes again, as its nodes do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..quantised_models import SVDQW4A4Linear

NAME = "nunchaku-loader"
_TILE = 16

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "lora_unet_", "lycoris_")
_ENDINGS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_(?:down|A(?:\.\w+)?)\.weight$", "down"),
        (r"\.lora_(?:up|B(?:\.\w+)?)\.weight$", "up"),
        (r"\.(?:lora_)?alpha$", "alpha"),
    )
)
_PATHS = tuple(
    (re.compile(pattern), template)
    for pattern, template in (
        (r"^(layers)[._](\d+)[._]attention[._]to[._](?P<part>[qkv])$", r"\1.\2.attention.to_qkv"),
        (r"^(layers)[._](\d+)[._]attention[._]to[._]out[._]0$", r"\1.\2.attention.to_out.0"),
        (r"^(layers)[._](\d+)[._]feed_forward[._]w(?P<part>[13])$", r"\1.\2.feed_forward.net.0.proj"),
        (r"^(layers)[._](\d+)[._]feed_forward[._]w2$", r"\1.\2.feed_forward.net.2"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._](?P<part>[qkv])$", r"\1.\2.attn.to_qkv"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]add[._](?P<part>[qkv])[._]proj$", r"\1.\2.attn.add_qkv_proj"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._]out[._]0$", r"\1.\2.attn.to_out.0"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._]add[._]out$", r"\1.\2.attn.to_add_out"),
        (r"^(transformer_blocks)[._](\d+)[._]ff(_context)?[._]net[._]0[._]proj$", r"\1.\2.ff\3.net.0.proj"),
        (r"^(transformer_blocks)[._](\d+)[._]ff(_context)?[._]net[._]2$", r"\1.\2.ff\3.net.2"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mlp[._]net[._]0[._]proj$", r"\1.\2.\3_mlp.net.0.proj"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mlp[._]net[._]2$", r"\1.\2.\3_mlp.net.2"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mod[._]1$", r"\1.\2.\3_mod.1"),
        (r"^(single_transformer_blocks)[._](\d+)[._]attn[._]to[._](?P<part>[qkv])$", r"\1.\2.attn.to_qkv"),
        (r"^(single_transformer_blocks)[._](\d+)[._]proj_mlp$", r"\1.\2.mlp_fc1"),
        (r"^(single_transformer_blocks)[._](\d+)[._]norm[._]linear$", r"\1.\2.norm.linear"),
        (r"^(img_in|txt_in|proj_out|norm_out[._]linear)$", r"\1"),
    )
)


class Found(NamedTuple):
    """What a key is: ``part`` of a fused module, or ""."""

    module: str
    part: str
    role: str


def classify(keys: Iterable[str]) -> dict[str, Found]:
    """By key, for those that an expression knows."""
    return {key: found for key in keys if (found := _found(key))}


def _found(key: str) -> Found | None:
    path = key
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    for ending, role in _ENDINGS:
        if match := ending.search(path):
            return _placed(path[: match.start()], role)
    return None


def _placed(path: str, role: str) -> Found | None:
    for pattern, template in _PATHS:
        if match := pattern.match(path):
            part = match["part"] if "part" in pattern.groupindex else ""
            return Found(match.expand(template), part, role)
    return None


def unpack(packed: Tensor, down: bool) -> Tensor:
    """A packed branch, [features, rank], as a matrix: [rank, features] of a down projection, else [features, rank]."""
    features, rank = packed.shape
    lanes = packed.view(features // _TILE, rank // _TILE, 8, 4, 2, 2, 2)
    tiles = lanes.permute(0, 1, 4, 2, 5, 3, 6).reshape(features // _TILE, rank // _TILE, _TILE, _TILE)
    return tiles.permute(1, 2, 0, 3).reshape(rank, features) if down else tiles.transpose(1, 2).reshape(features, rank)


def pack(matrix: Tensor, down: bool) -> Tensor:
    """The inverse of :func:`unpack`; rank and features are multiples of 16."""
    rank, features = matrix.shape if down else matrix.shape[::-1]
    if down:
        tiles = matrix.view(rank // _TILE, _TILE, features // _TILE, _TILE).permute(2, 0, 1, 3)
    else:
        tiles = matrix.view(features // _TILE, _TILE, rank // _TILE, _TILE).transpose(1, 2)
    lanes = tiles.reshape(features // _TILE, rank // _TILE, 2, 8, 2, 4, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return lanes.reshape(features, rank)


class Pair(NamedTuple):
    down: Tensor  # [rank, in]
    up: Tensor  # [out, rank]


class NunchakuLoader:
    """On the quantised modules of one model, in ``threads`` of torch's: all of them unless tuned."""

    name = NAME

    def __init__(self, modules: Mapping[str, SVDQW4A4Linear]) -> None:
        self._modules = modules
        self._base_ranks: dict[str, int] = {}
        self.threads = torch.get_num_threads()

    def tune(self, path: Path) -> None:
        """Chooses between one thread and all, by the better of two runs of each: those of small copies may wait for
        each other longer than they take."""
        seconds = {}
        for self.threads in (1, torch.get_num_threads()):
            seconds[self.threads] = min(self._seconds(path) for _ in range(2))
        self.threads = min(seconds, key=lambda threads: seconds[threads])

    def compose(self, adapters: Sequence[tuple[Path, float]]) -> None:
        with _threads(self.threads):
            self._compose(adapters)

    def set_strength(self, path: Path, strength: float) -> None:
        self.compose([(path, strength)])

    def reset(self) -> None:
        with _threads(self.threads):
            self._reset()

    def _seconds(self, path: Path) -> float:
        begin = time.perf_counter()
        self.compose([(path, 1.0)])
        self.reset()
        return time.perf_counter() - begin

    def _compose(self, adapters: Sequence[tuple[Path, float]]) -> None:
        self._reset()
        gathered: dict[str, list[Pair]] = {}
        for path, strength in adapters:
            for name, pair in _pairs(load_file(str(path)), strength):
                if name in self._modules:
                    gathered.setdefault(name, []).append(pair)
        for name, pairs in gathered.items():
            down = torch.cat([pair.down for pair in pairs], dim=0)
            up = torch.cat([pair.up for pair in pairs], dim=1)
            self._append(name, down, up)

    def _reset(self) -> None:
        for name, rank in self._base_ranks.items():
            module = self._modules[name]
            down, up = unpack(module.proj_down, down=True)[:rank], unpack(module.proj_up, down=False)[:, :rank]
            _assign(module, down.contiguous(), up.contiguous())
        self._base_ranks.clear()

    def _append(self, name: str, down: Tensor, up: Tensor) -> None:
        module = self._modules[name]
        lacking = -down.shape[0] % _TILE
        down = nn.functional.pad(down.to(module.proj_down), (0, 0, 0, lacking))
        up = nn.functional.pad(up.to(module.proj_up), (0, lacking))
        self._base_ranks[name] = module.rank
        base_down, base_up = unpack(module.proj_down, down=True), unpack(module.proj_up, down=False)
        _assign(module, torch.cat([base_down, down], dim=0), torch.cat([base_up, up], dim=1))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    ambient = torch.get_num_threads()
    if count == ambient:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(ambient)


def _assign(module: SVDQW4A4Linear, down: Tensor, up: Tensor) -> None:
    module.proj_down = nn.Parameter(pack(down, down=True), requires_grad=False)
    module.proj_up = nn.Parameter(pack(up, down=False), requires_grad=False)
    module.rank = down.shape[0]


def _pairs(tensors: Mapping[str, Tensor], strength: float) -> Iterator[tuple[str, Pair]]:
    """What a file has for each module, scaled."""
    groups: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, found in classify(tensors).items():
        groups.setdefault(found.module, {}).setdefault(found.part, {})[found.role] = tensors[key]
    for name, group in groups.items():
        pairs = {part: _scaled(own, strength) for part, own in group.items() if own.keys() >= {"down", "up"}}
        whole = pairs.get("") or _fused(name, pairs)
        if whole is not None:
            yield name, whole


def _scaled(own: Mapping[str, Tensor], strength: float) -> Pair:
    rank = own["down"].shape[0]
    alpha = float(own["alpha"]) if "alpha" in own else rank
    return Pair(own["down"], own["up"] * (alpha / rank * strength))


def _fused(name: str, pairs: Mapping[str, Pair]) -> Pair | None:
    """All parts of a fused module as one pair, or None where one is missing or ranks differ."""
    order = ("3", "1") if "feed_forward" in name else ("q", "k", "v")
    if any(part not in pairs for part in order) or len({pairs[part].down.shape[0] for part in order}) > 1:
        return None
    down = torch.cat([pairs[part].down for part in order], dim=0)
    rank, rows = pairs[order[0]].down.shape[0], sum(pairs[part].up.shape[0] for part in order)
    up = pairs[order[0]].up.new_zeros(rows, len(order) * rank)
    row = 0
    for place, part in enumerate(order):
        own = pairs[part].up
        up[row : row + own.shape[0], place * rank : (place + 1) * rank] = own
        row += own.shape[0]
    return Pair(down, up)
