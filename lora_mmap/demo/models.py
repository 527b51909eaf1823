"""Two models with the module names and layer widths of real ones, and few blocks: nothing runs forward."""

from __future__ import annotations

import torch
from torch import nn

QWEN_WIDTH, QWEN_MLP, QWEN_TEXT = 3072, 12288, 3584
_SDXL_TEXT = 2048


class _Net(nn.Module):
    """diffusers' FeedForward: ``net.0.proj`` and ``net.2``."""

    def __init__(self, width: int, inner: int, gated: bool) -> None:
        super().__init__()
        gate = nn.Module()
        gate.proj = _linear(width, inner * 2 if gated else inner)
        self.net = nn.ModuleList([gate, nn.Identity(), _linear(inner, width)])


class QwenBlock(nn.Module):
    """One dual-stream block; ``fused`` carries Nunchaku's ``to_qkv`` / ``add_qkv_proj`` in place of the split ones."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        width = QWEN_WIDTH
        self.attn = nn.Module()
        if fused:
            self.attn.to_qkv = _linear(width, 3 * width)
            self.attn.add_qkv_proj = _linear(width, 3 * width)
        else:
            for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
                setattr(self.attn, name, _linear(width, width))
        self.attn.to_out = nn.ModuleList([_linear(width, width)])
        self.attn.to_add_out = _linear(width, width)
        self.img_mlp = _Net(width, QWEN_MLP, gated=False)
        self.txt_mlp = _Net(width, QWEN_MLP, gated=False)
        self.img_mod = nn.Sequential(nn.SiLU(), _linear(width, 6 * width))
        self.txt_mod = nn.Sequential(nn.SiLU(), _linear(width, 6 * width))


def qwen_image(blocks: int, fused: bool) -> nn.Module:
    """The shape of Qwen-Image's transformer."""
    model = nn.Module()
    model.img_in = _linear(64, QWEN_WIDTH)
    model.txt_in = _linear(QWEN_TEXT, QWEN_WIDTH)
    model.transformer_blocks = nn.ModuleList([QwenBlock(fused) for _ in range(blocks)])
    model.proj_out = _linear(QWEN_WIDTH, 64)
    return model


def _attention(width: int, context: int) -> nn.Module:
    module = nn.Module()
    module.to_q = _linear(width, width)
    module.to_k = _linear(context, width)
    module.to_v = _linear(context, width)
    module.to_out = nn.ModuleList([_linear(width, width)])
    return module


def _transformer(width: int) -> nn.Module:
    block = nn.Module()
    block.attn1 = _attention(width, width)
    block.attn2 = _attention(width, _SDXL_TEXT)
    block.ff = _Net(width, 4 * width, gated=True)
    module = nn.Module()
    module.proj_in = _linear(width, width)
    module.transformer_blocks = nn.ModuleList([block])
    module.proj_out = _linear(width, width)
    return module


def _resnet(inputs: int, width: int) -> nn.Module:
    module = nn.Module()
    module.conv1 = _conv(inputs, width, 3)
    module.time_emb_proj = _linear(1280, width)
    module.conv2 = _conv(width, width, 3)
    module.conv_shortcut = _conv(inputs, width, 1)
    return module


def sdxl_unet() -> nn.Module:
    """The shape of SDXL's UNet: convolutions of 3x3 and 1x1, attention at widths 640 and 1280."""
    model = nn.Module()
    model.conv_in = _conv(4, 320, 3)
    model.down_blocks = nn.ModuleList()
    for inputs, width in ((320, 640), (640, 1280)):
        block = nn.Module()
        block.resnets = nn.ModuleList([_resnet(inputs, width)])
        block.attentions = nn.ModuleList([_transformer(width)])
        model.down_blocks.append(block)
    return model


def _linear(inputs: int, outputs: int) -> nn.Linear:
    module = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
    _fill(module.weight, inputs)
    return module


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    module = nn.Conv2d(inputs, outputs, kernel, bias=False, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
    _fill(module.weight, inputs * kernel * kernel)
    return module


def _fill(weight: torch.Tensor, fan_in: int) -> None:
    with torch.no_grad():
        weight.uniform_(-(fan_in**-0.5), fan_in**-0.5)
