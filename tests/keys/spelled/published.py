"""Models as published, on the meta device: real classes, real widths, fewer blocks.

A depth of two blocks shows every kind of module; the UNets keep their layout, in which block numbers say what is there.
"""

import inspect
import warnings
from functools import cache

import pytest
import torch
from torch import nn

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

DENOISERS = {
    "flux": lambda: diffusers.FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True),
    "flux2": lambda: diffusers.Flux2Transformer2DModel(
        in_channels=128, num_layers=2, num_single_layers=2, num_attention_heads=24, joint_attention_dim=7680
    ),
    "chroma": lambda: diffusers.ChromaTransformer2DModel(num_layers=2, num_single_layers=2),
    "qwen_image": lambda: diffusers.QwenImageTransformer2DModel(num_layers=2),
    "z_image": lambda: diffusers.ZImageTransformer2DModel(n_layers=2, n_refiner_layers=2),
    "sd15": lambda: _unet(
        ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        (320, 640, 1280, 1280),
        cross_attention_dim=768,
        attention_head_dim=8,
    ),
    "sdxl": lambda: _unet(
        ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        (320, 640, 1280),
        transformer_layers_per_block=[1, 2, 2],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "sd3": lambda: _sd3(),
    "sd35_medium": lambda: _sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm"),
    "wan_t2v": lambda: diffusers.WanTransformer3DModel(num_layers=2),
    "wan_i2v": lambda: diffusers.WanTransformer3DModel(
        num_layers=2, in_channels=36, added_kv_proj_dim=5120, image_dim=1280
    ),
    "lumina2": lambda: diffusers.Lumina2Transformer2DModel(num_layers=2, cap_feat_dim=2304),
    "auraflow": lambda: diffusers.AuraFlowTransformer2DModel(
        num_mmdit_layers=2, num_single_dit_layers=2, num_attention_heads=12, caption_projection_dim=3072
    ),
    "pixart_sigma": lambda: diffusers.PixArtTransformer2DModel(
        num_layers=2, out_channels=8, caption_channels=4096, use_additional_conditions=False
    ),
    "hunyuan_video": lambda: diffusers.HunyuanVideoTransformer3DModel(num_layers=2, num_single_layers=2),
    "ltx_video": lambda: diffusers.LTXVideoTransformer3DModel(num_layers=2),
    "hidream": lambda: diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=20,
        caption_channels=[4096, 4096],
        text_emb_dim=2048,
        num_routed_experts=4,
        num_activated_experts=2,
        llama_layers=[0, 1],
    ),
}
TEXT_ENCODERS = {
    "clip_l": lambda: transformers.CLIPTextModel(_clip(768, 12)),
    "clip_g": lambda: transformers.CLIPTextModelWithProjection(_clip(1280, 20, projection_dim=1280)),
    "t5": lambda: transformers.T5EncoderModel(
        transformers.T5Config(
            d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=2, feed_forward_proj="gated-gelu"
        )
    ),
}
LANGUAGE_MODELS = {
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=2,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=2)),
}
# More classes, small ones of any width: some have a family table, some have none and need none.
OTHER_CLASSES = (
    "BriaTransformer2DModel",
    "CogVideoXTransformer3DModel",
    "CogView4Transformer2DModel",
    "CosmosTransformer3DModel",
    "ErnieImageTransformer2DModel",
    "GlmImageTransformer2DModel",
    "HunyuanImageTransformer2DModel",
    "HunyuanVideo15Transformer3DModel",
    "Ideogram4Transformer2DModel",
    "Kandinsky5Transformer3DModel",
    "Krea2Transformer2DModel",
    "LTX2VideoTransformer3DModel",
    "MiniMaxH3Transformer3DModel",
    "MochiTransformer3DModel",
    "QwenImage21Transformer2DModel",
    "SanaTransformer2DModel",
)
_DEPTHS = ("num_layers", "num_single_layers", "num_refiner_layers", "num_visual_blocks", "num_text_blocks")
_ALL = {**DENOISERS, **TEXT_ENCODERS, **LANGUAGE_MODELS}


@cache
def published(name: str) -> nn.Module:
    """One of the models above; its weights are on the meta device and nobody changes them."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about models that want other dtypes, or classes that were renamed
        return _ALL[name]()


@cache
def other(class_name: str) -> nn.Module:
    """A class of diffusers' with its own defaults and two blocks of each kind; skips where this version lacks it."""
    kind = getattr(diffusers, class_name, None)
    if kind is None:
        pytest.skip(f"diffusers {diffusers.__version__} has no {class_name}")
    depths = {name: 2 for name in inspect.signature(kind.__init__).parameters if name in _DEPTHS}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**depths)


def matrices(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """What an adapter can be trained on: module path -> weight shape, of all Linears and convolutions."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {name: tuple(module.weight.shape) for name, module in model.named_modules() if isinstance(module, kinds)}


def _unet(down: tuple[str, ...], up: tuple[str, ...], channels: tuple[int, ...], **more: object) -> nn.Module:
    return diffusers.UNet2DConditionModel(
        down_block_types=down, up_block_types=up, block_out_channels=channels, layers_per_block=2, **more
    )


def _sd3(**more: object) -> nn.Module:
    """Three blocks: the last one has no output for the text."""
    return diffusers.SD3Transformer2DModel(num_layers=3, num_attention_heads=24, caption_projection_dim=1536, **more)


def _clip(width: int, heads: int, **more: object) -> object:
    return transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=heads, **more
    )
