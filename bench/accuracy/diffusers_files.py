"""Adapters on tiny models of diffusers' own classes, saved by diffusers or in the native naming that it converts, and
the weights that ``fuse_lora`` makes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from .reference import Settings
from .specimens import Specimen, Written, at_random, near_itself, tensors_in

_models: Any = diffusers  # untyped
_FILE = "pytorch_lora_weights.safetensors"
_RANK, _ALPHA = 3, 5
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def write(base: nn.Module, folder: Path, **options: Any) -> Written:
    """An adapter of PEFT's making, saved with ``save_lora_adapter``."""
    model: Any = copy.deepcopy(base)
    config = peft.LoraConfig(r=_RANK, lora_alpha=_ALPHA, init_lora_weights=False, **options)
    generator = torch.Generator().manual_seed(8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model.add_adapter(config)
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                near_itself(parameter, generator)
            elif "lora_" in name:
                at_random(parameter, generator)
        model.save_lora_adapter(folder)
    tuned = [name for name, found in model.named_modules() if isinstance(found, BaseTunerLayer)]
    settings = Settings(_ALPHA, _RANK, options.get("use_rslora", False))
    return Written(
        base,
        folder / _FILE,
        tensors_in(folder / _FILE),
        {name: name for name in tuned},
        lambda fresh, strength: _fused(fresh, strength, folder, prefix=None, weight_name=_FILE),
        dict.fromkeys(tuned, settings),
    )


def write_wan(folder: Path) -> Written:
    """Wan's own names, LoRA with ``diff_b`` on every Linear of a block; diffusers reads it as a trained bias."""
    base = _wan()
    native = {
        **{
            f"blocks.0.attn1.{ours}": f"blocks.0.self_attn.{theirs}"
            for ours, theirs in zip(_ATTENTION, "qkvo", strict=True)
        },
        **{
            f"blocks.0.attn2.{ours}": f"blocks.0.cross_attn.{theirs}"
            for ours, theirs in zip(_ATTENTION, "qkvo", strict=True)
        },
        "blocks.0.ffn.net.0.proj": "blocks.0.ffn.0",
        "blocks.0.ffn.net.2": "blocks.0.ffn.2",
    }
    stems = {ours: f"diffusion_model.{theirs}" for ours, theirs in native.items()}
    generator = torch.Generator().manual_seed(9)
    tensors: dict[str, Tensor] = {}
    for name, stem in stems.items():
        rows, cols = base.get_parameter(f"{name}.weight").shape
        shapes = {"lora_down.weight": (_RANK, cols), "lora_up.weight": (rows, _RANK), "diff_b": (rows,)}
        for ending, shape in shapes.items():
            tensors[f"{stem}.{ending}"] = torch.randn(shape, generator=generator) * 0.3
    path = folder / _FILE
    save_file(tensors, str(path))

    def merged(fresh: nn.Module, strength: float) -> Mapping[str, Tensor]:
        converted = diffusers.WanPipeline.lora_state_dict(dict(tensors_in(path)))
        return _fused(fresh, strength, converted, prefix="transformer")

    return Written(base, path, tensors_in(path), stems, merged)


def _fused(model: nn.Module, strength: float, source: Any, **options: Any) -> Mapping[str, Tensor]:
    diffuser: Any = model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffuser.load_lora_adapter(source, **options)
        diffuser.fuse_lora(lora_scale=strength)
        diffuser.unload_lora()
    return model.state_dict()


def _unet() -> nn.Module:
    return _seeded(
        lambda: _models.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    )


def _flux() -> nn.Module:
    return _seeded(
        lambda: _models.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=12,
            axes_dims_rope=(2, 2, 4),
        )
    )


def _wan() -> nn.Module:
    return _seeded(
        lambda: _models.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=40,
            num_layers=1,
        )
    )


def _seeded(make: Callable[[], Any]) -> nn.Module:
    torch.manual_seed(2)
    model: nn.Module = make()
    return model.eval()


def _specimen(algorithm: str, tensors: str, make: Callable[[], nn.Module], **options: Any) -> Specimen:
    return Specimen(algorithm, "diffusers", tensors, lambda folder: write(make(), folder, **options))


_PAIR = "`lora_A`, `lora_B`"
_OF_UNET = [*_ATTENTION, "conv1", "conv_shortcut", "proj_in"]

SPECIMENS = (
    _specimen("LoRA, a UNet's Linears and convolutions", _PAIR, _unet, target_modules=_OF_UNET),
    _specimen("rsLoRA, Flux", _PAIR, _flux, target_modules=[*_ATTENTION, "proj_mlp"], use_rslora=True),
    _specimen(
        "DoRA, a UNet's Linears and convolutions",
        f"{_PAIR}, `lora_magnitude_vector`",
        _unet,
        target_modules=_OF_UNET,
        use_dora=True,
    ),
    _specimen("DoRA, Flux", f"{_PAIR}, `lora_magnitude_vector`", _flux, target_modules=[*_ATTENTION], use_dora=True),
    Specimen(
        "LoRA with `diff_b`, Wan in its native naming",
        "diffusers",
        "`lora_down`, `lora_up`, `diff_b`",
        write_wan,
    ),
)
