"""A UNet with SDXL's kinds of blocks, small enough for tests."""

from __future__ import annotations

import torch
from torch import nn


def tiny_unet(reduced: bool) -> nn.Module:
    """bfloat16, under 100 K parameters, whether ``reduced`` or not."""
    import diffusers

    unet: nn.Module = diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(32,),
        layers_per_block=1,
        transformer_layers_per_block=[1],
        attention_head_dim=[2],
        cross_attention_dim=32,
        use_linear_projection=True,
    )
    return nn.Module.to(unet, torch.bfloat16).requires_grad_(False).eval()
