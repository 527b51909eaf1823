"""Models to fuse into: real sizes and real names, made-up weights that can be brought back without a copy of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

# Values repeat after this many elements: a prime, so that no weight's rows repeat in step.
_PATTERN_LENGTH = 4_194_301


def sdxl_unet(reduced: bool, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """SDXL's UNet (stabilityai/stable-diffusion-xl-base-1.0, unet/config.json), weights uninitialised. ``reduced``: one
    layer a block and transformers of depth 1 in place of two and 1, 2, 10."""
    import diffusers

    with torch.device("meta"):
        unet: Any = diffusers.UNet2DConditionModel(  # type: ignore[no-untyped-call]
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            layers_per_block=1 if reduced else 2,
            transformer_layers_per_block=[1, 1, 1] if reduced else [1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    # diffusers' own to() warns about modules that would rather stay fp32, of which this model has none.
    model: nn.Module = nn.Module.to(unet, dtype).to_empty(device=device)
    return model.requires_grad_(False).eval()


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


class Pattern:
    """Pseudo-random values that fill every tensor of a model from its first element on: written at the start, and again
    whenever a peer cannot bring its weights back exactly. For models of one 16-bit dtype on one device."""

    def __init__(self, model: nn.Module, std: float = 0.02) -> None:
        generator = torch.Generator().manual_seed(0)
        form = next(model.parameters())
        self._values = (torch.randn(_PATTERN_LENGTH, generator=generator) * std).to(form.device, form.dtype)
        self._linears = list(linears(model).values())
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                self._write(tensor)

    @property
    def count(self) -> int:
        """Linears of the model, as it was when it was filled."""
        return len(self._linears)

    def restore(self) -> None:
        """Rewrites the weights of all Linears: what an adapter of this harness touches."""
        with torch.no_grad():
            for module in self._linears:
                self._write(module.weight)

    def changed(self, whole: bool = False) -> int:
        """Linears whose weight differs from the pattern, by its first elements or by every one."""
        count = 0
        for module in self._linears:
            flat = module.weight.detach().view(-1)
            pieces = self._pieces(flat if whole else flat[:65536])
            count += any(not torch.equal(piece.view(torch.int16), expected) for piece, expected in pieces)
        return count

    def drift(self) -> float:
        """The fraction of the Linears' elements that differ from the pattern, of all of them."""
        elements = different = 0
        for module in self._linears:
            for piece, expected in self._pieces(module.weight.detach().view(-1)):
                elements += piece.numel()
                different += int(torch.count_nonzero(piece.view(torch.int16) != expected))
        return different / elements

    def _write(self, tensor: torch.Tensor) -> None:
        for piece, values in self._pieces(tensor.detach().view(-1)):
            piece.view(torch.int16).copy_(values)

    def _pieces(self, flat: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        bits = self._values.view(torch.int16)
        for begin in range(0, flat.numel(), _PATTERN_LENGTH):
            piece = flat[begin : begin + _PATTERN_LENGTH]
            yield piece, bits[: piece.numel()]


def tree(names: list[str], rows: int, cols: int) -> nn.Module:
    """Small Linears at dotted module paths."""
    root = nn.Module()
    for name in names:
        place(root, name, nn.Linear(cols, rows, bias=False))
    return root.requires_grad_(False)


def tree_of(shapes: Mapping[str, tuple[int, int]], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Linears [rows, cols] at dotted module paths, weights uninitialised."""
    root = nn.Module()
    for name, (rows, cols) in shapes.items():
        place(root, name, nn.Linear(cols, rows, bias=False, device="meta", dtype=dtype).to_empty(device=device))
    return root.requires_grad_(False)


def place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Puts ``module`` at a dotted path below ``root``."""
    *parents, leaf = name.split(".")
    at = root
    for parent in parents:
        if parent not in at._modules:
            at.add_module(parent, nn.Module())
        at = at.get_submodule(parent)
    at.add_module(leaf, module)


_QWEN_IMAGE_BLOCK = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *("img_mod.1", "txt_mod.1"),
    *(f"{stream}_mlp.net.{layer}" for stream in ("img", "txt") for layer in ("0.proj", "2")),
)


_WAN_BLOCK = {
    **{f"self_attn.{piece}": f"attn1.to_{piece}" for piece in "qkv"},
    "self_attn.o": "attn1.to_out.0",
    **{f"cross_attn.{piece}": f"attn2.to_{piece}" for piece in "qkv"},
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}


def wan_names(count: int) -> dict[str, str]:
    """The first ``count`` module paths of a Wan transformer with enough blocks: published name -> diffusers' name."""
    blocks = range(-(-count // len(_WAN_BLOCK)))
    pairs = [(f"blocks.{i}.{native}", f"blocks.{i}.{own}") for i in blocks for native, own in _WAN_BLOCK.items()]
    return dict(pairs[:count])


def qwen_image_names(count: int) -> list[str]:
    """The first ``count`` module paths of a Qwen-Image transformer with enough blocks (its own 60 have 840)."""
    blocks = -(-count // len(_QWEN_IMAGE_BLOCK))
    return [f"transformer_blocks.{i}.{part}" for i in range(blocks) for part in _QWEN_IMAGE_BLOCK][:count]
