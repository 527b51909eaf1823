"""What diffusers itself makes of a file, on tiny models of its own. Skips where it is not installed."""

import copy
import inspect
from collections.abc import Mapping

import torch
from tiny_diffusers import diffusers
from torch import nn

import lora_mmap

W = 16  # the width of every model here: two heads of 8


def flux2() -> nn.Module:
    return diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
    )


def wan() -> nn.Module:
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        text_dim=12,
        freq_dim=8,
        ffn_dim=32,
        num_layers=1,
    )


def z_image() -> nn.Module:
    return diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=W,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=12,
        axes_dims=[2, 2, 4],
        axes_lens=[8, 8, 8],
    )


def ltx() -> nn.Module:
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=W,
        num_layers=1,
        caption_channels=12,
    )


def hunyuan_video() -> nn.Module:
    return diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=12,
        pooled_projection_dim=12,
        rope_axes_dim=(2, 2, 4),
    )


def added_by_diffusers(pipeline: str, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """{module: what its loader and ``fuse_lora`` add} on a copy of ``model``, without those that stay as they are."""
    peer, loader = copy.deepcopy(model), getattr(diffusers, pipeline)
    # It scales some factors in place.
    tensors = {key: value.clone() for key, value in tensors.items()}
    with_alphas = "return_alphas" in inspect.signature(loader.lora_state_dict).parameters
    found = loader.lora_state_dict(tensors, **({"return_alphas": True} if with_alphas else {}))
    state, alphas = found if isinstance(found, tuple) else (found, None)
    takes_alphas = "network_alphas" in inspect.signature(loader.load_lora_into_transformer).parameters
    options = {"network_alphas": alphas} if takes_alphas else {}
    loader.load_lora_into_transformer(state, transformer=peer, **options)
    if getattr(peer, "peft_config", None):
        peer.fuse_lora()
        peer.unload_lora()
    return _difference(peer, dict(model.named_parameters()))


def added_by_us(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same by us; every key has to be applied."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    lora_mmap.compose(model, [(dict(tensors), 1.0)], strict=True)
    added = _difference(model, before)
    lora_mmap.reset(model)
    return added


def _difference(model: nn.Module, before: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    differences = {name: (value - before[name]).detach() for name, value in model.named_parameters()}
    return {name.removesuffix(".weight"): value for name, value in differences.items() if value.any()}
