"""Every known beginning of an adapter key. Prefixes nest (``base_model.model.transformer.``); the module path is tried
as it stands first, then after each prefix, so a model that really has such a level keeps it."""

from __future__ import annotations

from .tables import Prefix

PREFIXES: tuple[Prefix, ...] = (
    Prefix("lora_unet_", "denoiser", "kohya"),
    Prefix("lora_unet__", "denoiser", "kohya"),
    Prefix("lora_prior_unet_", "denoiser", "kohya"),
    Prefix("lora_transformer_", "denoiser", "kohya on diffusers names"),
    Prefix("lora_te_", "text_encoder", "kohya"),
    Prefix("lora_te1_", "text_encoder", "kohya"),
    Prefix("lora_te2_", "text_encoder_2", "kohya"),
    Prefix("lora_te3_", "text_encoder_3", "kohya"),
    Prefix("lora_prior_te_", "text_encoder", "kohya"),
    Prefix("lycoris_", "denoiser", "LyCORIS"),
    Prefix("transformer.", "denoiser", "diffusers"),
    Prefix("unet.", "denoiser", "diffusers"),
    Prefix("text_encoder.", "text_encoder", "diffusers"),
    Prefix("text_encoder_2.", "text_encoder_2", "diffusers"),
    Prefix("text_encoder_3.", "text_encoder_3", "diffusers"),
    Prefix("diffusion_model.", "denoiser", "ComfyUI"),
    Prefix("model.diffusion_model.", "denoiser", "full checkpoint"),
    Prefix("conditional_transformer.", "denoiser", "diffusers"),
    Prefix("text_encoders.clip_l.transformer.", "text_encoder", "ComfyUI"),
    Prefix("text_encoders.clip_g.transformer.", "text_encoder_2", "ComfyUI"),
    Prefix("text_encoders.t5xxl.transformer.", "text_encoder_3", "ComfyUI"),
    *(
        Prefix(f"text_encoders.{name}.transformer.", "text_encoder", "ComfyUI")
        for name in ("clip_h", "umt5xxl", "gemma2_2b", "llama", "qwen25_7b", "qwen3_06b", "qwen3_4b")
    ),
    Prefix("base_model.model.", None, "PEFT"),
    Prefix("_orig_mod.", None, "torch.compile"),
    Prefix("module.", None, "DataParallel"),
    Prefix("model.", None, "wrapped model"),
    Prefix("model_", None, "wrapped model"),
    Prefix("language_model.", None, "part of a model of several kinds"),
    Prefix("language_model_", None, "part of a model of several kinds"),
    Prefix("text_model.", None, "CLIP"),
    Prefix("text_model_", None, "CLIP"),
)


def components() -> list[str]:
    """The pipeline components that prefixes name, each once."""
    return list(dict.fromkeys(prefix.component for prefix in PREFIXES if prefix.component))
