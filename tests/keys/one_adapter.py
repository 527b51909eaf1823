"""One adapter in the spelling of every trainer: apart as diffusers' modules, or stacked as the published ones."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from adapter_tensors import factors
from reduced_models import Homes
from safetensors.torch import save_file
from spelled.trainers import DENOISER

# Ranks and alphas of the parts of one matrix: scales are powers of two, which stacking folds in without a rounding.
_OWN = ((4, 2.0), (2, 4.0), (8, 4.0), (1, 1.0))
_SHARED = (6, 5.0)


class Pair(NamedTuple):
    """The factors of one module: down [rank, cols], up [rows, rank], and their alpha."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.down.shape[0]


Adapter = dict[str, Pair]  # by module


def shared(shapes: Mapping[str, tuple[int, ...]], homes: Homes) -> Adapter:
    """What is stacked in the published model is trained there: one down factor and one alpha for all parts."""
    adapter: Adapter = {}
    rank, alpha = _SHARED
    for seed, (module, shape) in enumerate(shapes.items()):
        first = next(other for other in shapes if homes[other].module == homes[module].module)
        down, up = factors(shape[0], _inner(shape), rank, seed, torch.bfloat16)
        adapter[module] = Pair(adapter[first].down if first != module else down, up, alpha)
    return adapter


def own(shapes: Mapping[str, tuple[int, ...]], homes: Homes) -> Adapter:
    """Every module is trained alone, with a rank and an alpha of its own."""
    adapter: Adapter = {}
    for seed, (module, shape) in enumerate(shapes.items()):
        part = sum(homes[other].module == homes[module].module for other in adapter)
        rank, alpha = _OWN[part]
        adapter[module] = Pair(*factors(shape[0], _inner(shape), rank, seed), alpha)
    return adapter


def stacked(adapter: Adapter, homes: Homes) -> Adapter:
    """The same for modules that hold several: with one down factor for all, or the down factors one below the other and
    the up factors in blocks on the diagonal."""
    together: dict[str, list[str]] = {}
    for module in sorted(adapter, key=lambda module: homes[module].begin):
        together.setdefault(homes[module].module, []).append(module)
    return {whole: _stack([_ordered(adapter[m], homes[m].swapped) for m in parts]) for whole, parts in together.items()}


def _stack(pairs: list[Pair]) -> Pair:
    first = pairs[0]
    if all(pair.down is first.down for pair in pairs):
        return Pair(first.down, torch.cat([pair.up for pair in pairs]), first.alpha)
    down = torch.cat([pair.down for pair in pairs])
    return Pair(down, torch.block_diag(*(pair.up * pair.scale for pair in pairs)), float(len(down)))


def _ordered(pair: Pair, swapped: bool) -> Pair:
    return pair._replace(up=pair.up.roll(len(pair.up) // 2, 0)) if swapped else pair


def _inner(shape: tuple[int, ...]) -> int | tuple[int, ...]:
    return shape[1] if len(shape) == 2 else shape[1:]


def write(folder: Path, dialect: str, adapter: Adapter) -> Path:
    """A file as ``trainers.DENOISER[dialect]`` spells it. Where that has no key for alpha, metadata says it: diffusers'
    in the file, PEFT's beside it."""
    spelling = DENOISER[dialect]
    tensors = {}
    for module, pair in adapter.items():
        down, up, *alpha = spelling.keys(module)
        tensors[down], tensors[up] = pair.down.clone(), pair.up.contiguous()
        tensors.update({key: torch.tensor(pair.alpha) for key in alpha})
    folder.mkdir()
    path = folder / "adapter_model.safetensors"
    config = {
        "r": 1,
        "lora_alpha": 1,
        "alpha_pattern": {re.escape(module): pair.alpha for module, pair in adapter.items()},
    }
    component = spelling.prefix.rstrip(".")
    if spelling.alpha:
        save_file(tensors, path)
    elif component in ("transformer", "unet"):
        packed = {f"{component}.{field}": value for field, value in config.items()}
        save_file(tensors, path, {"lora_adapter_metadata": json.dumps(packed)})
    else:
        save_file(tensors, path)
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return path
