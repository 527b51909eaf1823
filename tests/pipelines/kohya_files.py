"""Adapters for the tiny pipelines as kohya's and musubi's trainers and ComfyUI write them."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from adapter_files import Layer, Layers, Written, write_diffusers_spelling
from safetensors.torch import save_file
from spelled.native_transformers import NATIVE, Place
from spelled.native_unets import native_unet
from tiny_pipelines import KINDS, parts_of, tiny_pipeline
from torch import nn


class Trainer(NamedTuple):
    """How one trainer writes one kind of pipeline.

    ``places`` leads from diffusers' modules to the model that was trained, ``trains`` says which modules of that one.
    ``alphas`` are given in turn, to those for which ``has_alpha``. ``apart``: q, k and v were trained apart and saved
    as one (sd-scripts' split_qkv): the down factors one below the other, the up factors on a diagonal.
    ``read_by_diffusers``: whether its converter takes the file, and right.
    """

    kind: str
    places: Callable[[list[str]], Mapping[str, Place]]
    prefix: str = "lora_unet_"
    flat: bool = True
    trains: Callable[[str], bool] = lambda module: True
    alphas: tuple[float, ...] = (1.0, 2.5, 4.0)
    has_alpha: Callable[[str], bool] = lambda module: True
    apart: bool = False
    read_by_diffusers: bool = True


def _own_names(modules: list[str]) -> dict[str, Place]:
    return {module: Place(module) for module in modules}


def _sgm(modules: list[str]) -> dict[str, Place]:
    return {own: Place(native) for own, native in native_unet("sdxl", modules).items()}


def _native(family: str) -> Callable[[list[str]], dict[str, Place]]:
    return lambda modules: {module: NATIVE[family][module] for module in modules if module in NATIVE[family]}


def _in_block(module: str) -> bool:
    return re.search(r"\.\d+\.", module) is not None


def _block_of_flux_but_linear1(module: str) -> bool:
    """diffusers cuts ``linear1`` at the real model's widths; outside of blocks it drops modules or their alphas."""
    return _in_block(module) and not module.endswith(".linear1")


_OUTSIDE = ("time_embedding", "text_embedding", "time_projection", "head.head")
TRAINERS = {
    "sd15": Trainer("sd15", _own_names, alphas=(2.5,)),
    "sdxl": Trainer("sdxl", _sgm, alphas=(2.5,)),
    "sdxl_alphas": Trainer("sdxl", _sgm, read_by_diffusers=False),  # of attentions, it takes all for the commonest
    "flux": Trainer("flux", _native("flux"), trains=_block_of_flux_but_linear1),
    "flux_split_qkv": Trainer("flux", _native("flux"), trains=_block_of_flux_but_linear1, apart=True),
    "flux_whole": Trainer("flux", _native("flux"), read_by_diffusers=False),
    "sd3": Trainer("sd3", _native("sd35_medium"), trains=lambda m: "x_embedder" not in m, read_by_diffusers=False),
    "qwen_image": Trainer("qwen_image", _own_names),
    "wan_musubi": Trainer("wan", _native("wan_t2v"), trains=_in_block),
    "wan_comfyui": Trainer(
        "wan",
        _native("wan_t2v"),
        prefix="diffusion_model.",
        flat=False,
        trains=lambda module: _in_block(module) or module.startswith(_OUTSIDE),
        has_alpha=_in_block,
    ),
    "z_image_musubi": Trainer("z_image", _own_names),
    "z_image_native": Trainer("z_image", _native("z_image"), trains=_in_block),
}
_RANKS = (3, 2, 5, 4)


def kohya_file(trainer: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Written:
    """A file of the pipeline's first denoiser and all text encoders that diffusers loads adapters into."""
    how = TRAINERS[trainer]
    family = KINDS[how.kind]
    parts = parts_of(how.kind, tiny_pipeline(how.kind))
    draw = torch.Generator().manual_seed(seed + 1)
    tensors: dict[str, torch.Tensor] = {}
    layers: Layers = {family.denoiser: {}}
    shapes = _shapes(parts[family.denoiser])
    for number, (native, places) in enumerate(_trained(how, shapes).items()):
        rank, alpha = _RANKS[number % 4], how.alphas[number % len(how.alphas)] if how.has_alpha(native) else None
        stem = how.prefix + (native.replace(".", "_") if how.flat else native)
        together = len(places) > 1 and not how.apart
        write = _write_shared if together else _write_apart
        added = write(stem, [(module, shapes[module]) for module in places], rank, alpha, dtype, draw, tensors)
        for module, place in places.items():
            layer = added[module]
            layers[family.denoiser][module] = layer._replace(up=_halves_swapped(layer.up)) if place.permuted else layer
    for number, component in enumerate(family.text_encoders, 1):
        lone = len(family.text_encoders) == 1 and family.denoiser == "unet"
        prefix = "lora_te_" if lone else f"lora_te{number}_"
        layers[component] = _text_encoder(how, parts[component], prefix, dtype, draw, tensors)
    path = folder / f"{trainer}.safetensors"
    save_file(tensors, path, {"ss_network_module": "networks.lora"})
    readable = how.read_by_diffusers
    twin = path if readable else write_diffusers_spelling(folder / f"{trainer}_twin.safetensors", layers)
    return Written(path, layers, twin)


def _trained(how: Trainer, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, Place]]:
    """{module of the trained model: {diffusers' module: its place}}, in the order of their rows."""
    found: dict[str, dict[str, Place]] = {}
    for module, place in how.places(list(shapes)).items():
        if how.trains(place.module):
            found.setdefault(place.module, {})[module] = place
    begins = {
        module: place.rows[0] if place.rows else 0 for places in found.values() for module, place in places.items()
    }
    return {native: dict(sorted(places.items(), key=lambda item: begins[item[0]])) for native, places in found.items()}


Part = tuple[str, tuple[int, ...]]  # a module of diffusers and its weight's shape


def _write_shared(
    stem: str,
    parts: list[Part],
    rank: int,
    alpha: float | None,
    dtype: torch.dtype,
    draw: torch.Generator,
    tensors: dict[str, torch.Tensor],
) -> dict[str, Layer]:
    """One pair for all parts: they share the down factor, and the rows of the up factor are theirs in turn."""
    whole = (sum(shape[0] for _, shape in parts), *parts[0][1][1:])
    down, up = _factors(whole, rank, dtype, draw)
    _put(stem, down, up, alpha, tensors)
    rows = up.split([shape[0] for _, shape in parts])
    scale = alpha / rank if alpha else 1.0
    return {module: Layer(down, own, scale) for (module, _), own in zip(parts, rows, strict=True)}


def _write_apart(
    stem: str,
    parts: list[Part],
    rank: int,
    alpha: float | None,
    dtype: torch.dtype,
    draw: torch.Generator,
    tensors: dict[str, torch.Tensor],
) -> dict[str, Layer]:
    """A pair for each part, in one of as many times the rank; alpha grows with it, or the scale would shrink."""
    pairs = [_factors(shape, rank, dtype, draw) for _, shape in parts]
    down = torch.cat([down for down, _ in pairs])
    up = torch.block_diag(*[up for _, up in pairs]) if len(pairs) > 1 else pairs[0][1]
    _put(stem, down, up, alpha * len(pairs) if alpha else None, tensors)
    scale = alpha / rank if alpha else 1.0
    return {module: Layer(*pair, scale) for (module, _), pair in zip(parts, pairs, strict=True)}


def _put(
    stem: str, down: torch.Tensor, up: torch.Tensor, alpha: float | None, tensors: dict[str, torch.Tensor]
) -> None:
    tensors[f"{stem}.lora_down.weight"] = down
    tensors[f"{stem}.lora_up.weight"] = up
    if alpha:
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)


def _factors(
    shape: tuple[int, ...], rank: int, dtype: torch.dtype, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(down, up), whose product is about as large as a weight of this shape that torch initialised."""
    down = torch.randn(rank, *shape[1:], generator=draw) * math.prod(shape[1:]) ** -0.5
    up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=draw) * 0.3
    return down.to(dtype), up.to(dtype)


def _halves_swapped(up: torch.Tensor) -> torch.Tensor:
    return up.roll(up.shape[0] // 2, 0)


def _text_encoder(
    how: Trainer,
    model: nn.Module,
    prefix: str,
    dtype: torch.dtype,
    draw: torch.Generator,
    tensors: dict[str, torch.Tensor],
) -> dict[str, Layer]:
    """Keys say ``text_model``, the level that CLIPTextModel had before transformers 5."""
    level = "" if hasattr(model, "text_model") else "text_model_"
    layers: dict[str, Layer] = {}
    for number, (module, shape) in enumerate(_shapes(model).items()):
        if ".layers." in f".{module}":
            stem = prefix + level + module.replace(".", "_")
            rank, alpha = _RANKS[number % 4], how.alphas[number % len(how.alphas)]
            layers |= _write_apart(stem, [(module, shape)], rank, alpha, dtype, draw, tensors)
    return layers


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the weights of all Linears and convolutions."""
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return {name: tuple(module.weight.shape) for name, module in model.named_modules() if isinstance(module, kinds)}
