"""Real pipelines of diffusers, offline, of tiny components with seeded random weights.

There are no tokenizers and no VAEs: components are run one by one, images are not made.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import tiny_components as tiny
import torch
from tiny_components import diffusers
from torch import nn


class Kind(NamedTuple):
    """``parts`` make the components that have weights; ``loadable`` are those that diffusers loads adapters into."""

    pipeline: str
    parts: dict[str, Callable[[], nn.Module]]
    loadable: tuple[str, ...]
    empty: tuple[str, ...]
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def denoiser(self) -> str:
        return self.loadable[0]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Those that diffusers loads adapters into."""
        return tuple(name for name in self.loadable if name.startswith("text_encoder"))


_WITHOUT = ("vae", "tokenizer")
_CLIP_L_OF_SD3 = 8  # channels; not as many as CLIP-G, so that the two are told apart by their sizes
KINDS = {
    "sd15": Kind(
        "StableDiffusionPipeline",
        {"unet": tiny.sd15_unet, "text_encoder": tiny.clip},
        ("unet", "text_encoder"),
        (*_WITHOUT, "safety_checker", "feature_extractor"),
        (("requires_safety_checker", False),),
    ),
    "sdxl": Kind(
        "StableDiffusionXLPipeline",
        {"unet": tiny.sdxl_unet, "text_encoder": tiny.clip, "text_encoder_2": tiny.clip_with_projection},
        ("unet", "text_encoder", "text_encoder_2"),
        (*_WITHOUT, "tokenizer_2"),
        (("add_watermarker", False),),
    ),
    "sd3": Kind(
        "StableDiffusion3Pipeline",
        {
            "transformer": tiny.sd3_transformer,
            "text_encoder": lambda: tiny.clip_with_projection(_CLIP_L_OF_SD3),
            "text_encoder_2": tiny.clip_with_projection,
            "text_encoder_3": tiny.t5,
        },
        ("transformer", "text_encoder", "text_encoder_2"),
        (*_WITHOUT, "tokenizer_2", "tokenizer_3"),
    ),
    "flux": Kind(
        "FluxPipeline",
        {"transformer": tiny.flux_transformer, "text_encoder": tiny.clip, "text_encoder_2": tiny.t5},
        ("transformer", "text_encoder"),
        (*_WITHOUT, "tokenizer_2"),
    ),
    "qwen_image": Kind(
        "QwenImagePipeline",
        {"transformer": tiny.qwen_image_transformer},
        ("transformer",),
        (*_WITHOUT, "text_encoder"),
    ),
    "wan": Kind(
        "WanPipeline",
        {"transformer": tiny.wan_transformer, "text_encoder": lambda: tiny.t5("UMT5")},
        ("transformer",),
        (*_WITHOUT, "transformer_2"),
    ),
    "wan_two_experts": Kind(
        "WanPipeline",
        {
            "transformer": tiny.wan_transformer,
            "transformer_2": tiny.wan_transformer,
            "text_encoder": lambda: tiny.t5("UMT5"),
        },
        ("transformer", "transformer_2"),
        _WITHOUT,
        (("boundary_ratio", 0.5),),
    ),
    "z_image": Kind(
        "ZImagePipeline",
        {"transformer": tiny.z_image_transformer, "text_encoder": tiny.qwen3},
        ("transformer",),
        _WITHOUT,
    ),
}


def tiny_pipeline(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A new pipeline of this kind; all of a kind and dtype have the same weights."""
    return assembled(kind, {name: _converted(copy.deepcopy(part), dtype) for name, part in _parts(kind).items()})


def assembled(kind: str, parts: dict[str, nn.Module]) -> Any:
    """A pipeline of these very components."""
    family = KINDS[kind]
    solver = "DDIMScheduler" if family.denoiser == "unet" else "FlowMatchEulerDiscreteScheduler"
    options = {"steps_offset": 1, "clip_sample": False} if family.denoiser == "unet" else {}
    return getattr(diffusers, family.pipeline)(
        scheduler=getattr(diffusers, solver)(**options),
        **parts,
        **dict.fromkeys(family.empty),
        **dict(family.arguments),
    )


def parts_of(kind: str, pipeline: Any) -> dict[str, nn.Module]:
    """The pipeline's components that have weights, by name."""
    return {name: getattr(pipeline, name) for name in KINDS[kind].parts}


def _converted(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """In this dtype, but for what the class wants in fp32, as ``from_pretrained`` does (Wan: time embedding, norms)."""
    kept = (
        set(getattr(model, "_keep_in_fp32_modules", None) or ()) if isinstance(model, diffusers.ModelMixin) else set()
    )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and kept.isdisjoint(name.split(".")):
            tensor.data = tensor.data.to(dtype)
    return model


@cache
def _parts(kind: str) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(sum(kind.encode()))
        return {name: make().eval().requires_grad_(False) for name, make in KINDS[kind].parts.items()}
