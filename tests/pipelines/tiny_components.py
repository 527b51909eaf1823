"""The components of the tiny pipelines: real classes of diffusers and transformers at a few channels, in fp32."""

import pytest
from torch import nn

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

TEXT_WIDTH = 12  # what every text encoder gives out, and every denoiser takes in
POOLED = 10
TOKENS = 30


def sd15_unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def sdxl_unet() -> nn.Module:
    """Three levels of two layers, as the real one: files in the SGM naming count the blocks as one list."""
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(4, 8, 16),
        norm_num_groups=2,
        attention_head_dim=[2, 2, 4],
        cross_attention_dim=TEXT_WIDTH + POOLED,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + POOLED,
    )


def sd3_transformer() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * POOLED,
        pos_embed_max_size=8,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )


def flux_transformer() -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=6,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )


def qwen_image_transformer() -> nn.Module:
    return diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=8,
        out_channels=2,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(2, 2, 4),
    )


def wan_transformer() -> nn.Module:
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=20,
        num_layers=2,
        rope_max_seq_len=16,
    )


def z_image_transformer() -> nn.Module:
    model = diffusers.ZImageTransformer2DModel(
        in_channels=2,
        dim=16,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[2, 2, 4],
        axes_lens=[64, 16, 16],
    )
    for token in (model.x_pad_token, model.cap_pad_token):  # the class leaves them uninitialised
        nn.init.normal_(token)
    return model


def _clip_config(width: int) -> "transformers.CLIPTextConfig":
    return transformers.CLIPTextConfig(
        vocab_size=TOKENS,
        hidden_size=width,
        intermediate_size=width + 4,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=POOLED,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def clip(width: int = TEXT_WIDTH) -> nn.Module:
    return transformers.CLIPTextModel(_clip_config(width))


def clip_with_projection(width: int = POOLED) -> nn.Module:
    return transformers.CLIPTextModelWithProjection(_clip_config(width))


def t5(kind: str = "T5") -> nn.Module:
    """``kind``: T5, or UMT5, whose every block has a position table of its own."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=TOKENS, d_model=TEXT_WIDTH, d_kv=6, d_ff=14, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def qwen3() -> nn.Module:
    return transformers.Qwen3Model(
        transformers.Qwen3Config(
            vocab_size=TOKENS,
            hidden_size=TEXT_WIDTH,
            intermediate_size=14,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=6,
        )
    )
