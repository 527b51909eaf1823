"""Adapters by name on an SDXL pipeline: load, mix, switch, delete, and take everything out again.

The pipeline is diffusers' own class at reduced width with random weights, so this needs no download and no GPU:

    python examples/sdxl_pipeline.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from random_adapters import sha256, write_diffusers, write_kohya

from lora_mmap import (
    delete_adapters,
    get_active_adapters,
    load_and_fuse_lora,
    lora_cache_info,
    set_and_fuse_adapters,
    unfuse_lora,
)

try:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
except ImportError as error:
    sys.exit(f"This example needs diffusers and transformers (pip install diffusers transformers): {error}")

WIDTHS = (32, 64)  # of the text encoders: 768 and 1280 in SDXL


def main() -> int:
    torch.set_num_threads(1)  # at these widths a second thread only costs
    pipeline = tiny_sdxl()
    components = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    pristine, before = sha256(*components), latents(pipeline)
    with tempfile.TemporaryDirectory() as name:
        style, detail = write_adapters(pipeline, Path(name))

        # A file, with a strength for each component; components left out get 1.0.
        report = load_and_fuse_lora(pipeline, style, "style", lora_scale={"unet": 0.8, "text_encoder": 0.5})
        print(report)
        # A folder as diffusers saves it, beside what is there already.
        print(load_and_fuse_lora(pipeline, detail, "detail", lora_scale=0.6))
        print(f"active: {get_active_adapters(pipeline)}, latents moved by {moved(pipeline, before):.4f}")

        # Other strengths, another order: one pass over the weights, and no file is opened.
        report = set_and_fuse_adapters(pipeline, ["detail", "style"], [0.3, {"unet": 1.2, "text_encoder": 0.0}])
        print(f"active: {get_active_adapters(pipeline)}, {report.files_opened} files opened for that")

        # What is left is what it would be if "style" had never been there.
        delete_adapters(pipeline, "style")
        left = sha256(*components)
        unfuse_lora(pipeline)
        restored, after = sha256(*components), moved(pipeline, before)
        set_and_fuse_adapters(pipeline, "detail", 0.3)
        alone = sha256(*components)
        delete_adapters(pipeline)

    print(f"'detail' after deleting 'style' is 'detail' alone: {left == alone}")
    print(f"after unfuse_lora the latents have moved by {after:.4f}, and sha256 of all weights is")
    print(f"  {restored}, which is {'the same as' if restored == pristine else 'DIFFERENT from'} before")
    print(f"cache: {lora_cache_info()}")
    return 0 if restored == pristine and left == alone else 1


def write_adapters(pipeline: StableDiffusionXLPipeline, folder: Path) -> tuple[Path, Path]:
    kohya = {"lora_unet": pipeline.unet, "lora_te1": pipeline.text_encoder, "lora_te2": pipeline.text_encoder_2}
    style = write_kohya(folder / "style.safetensors", kohya, rank=8, alpha=4.0, seed=1)
    detail = write_diffusers(folder / "detail", {"unet": pipeline.unet}, rank=4, seed=2)
    return style, detail


def tiny_sdxl() -> StableDiffusionXLPipeline:
    """SDXL's blocks and names, a fortieth of its width, fewer layers."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16, 32),
        norm_num_groups=4,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTHS[1],
    )
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=CLIPTextModel(tiny_clip(WIDTHS[0])),
        text_encoder_2=CLIPTextModelWithProjection(tiny_clip(WIDTHS[1])),
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(torch.bfloat16)


def tiny_clip(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=100,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=8,
        projection_dim=width,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )


@torch.no_grad()
def latents(pipeline: StableDiffusionXLPipeline) -> torch.Tensor:
    """Two steps from the same noise and the same eight tokens, through both text encoders and the UNet."""
    tokens = torch.tensor([[98, 1, 2, 3, 4, 5, 6, 99]])
    first = pipeline.text_encoder(tokens, output_hidden_states=True)
    second = pipeline.text_encoder_2(tokens, output_hidden_states=True)
    return pipeline(
        prompt_embeds=torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
        pooled_prompt_embeds=second.text_embeds,
        guidance_scale=0.0,
        num_inference_steps=2,
        height=128,
        width=128,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images


def moved(pipeline: StableDiffusionXLPipeline, before: torch.Tensor) -> float:
    """The norm of the change of the latents, relative to what they were."""
    return float((latents(pipeline).float() - before.float()).norm() / before.float().norm())


if __name__ == "__main__":
    sys.exit(main())
