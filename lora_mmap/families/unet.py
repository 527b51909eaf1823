"""The UNet of Stable Diffusion 1, 2 and XL: CompVis' and Stability's numbering of its blocks (``native``, which ComfyUI
keeps) and diffusers' levels.

Natively, ``input_blocks`` and ``output_blocks`` count through: a level is two (three on the way up) residual blocks,
each with its attention, and a change of resolution. diffusers names level, layer and kind. Inside a transformer block
both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .tables import Naming, Weights, rows, same

_LAYERS = 2  # residual blocks per level on the way down; one more on the way up

NAMINGS = (Naming("processor", in_models=False),)

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def unet(levels: int, attention: Iterable[int]) -> tuple[Weights, ...]:
    """The weights of a UNet with so many ``levels`` of resolution, of which ``attention`` (0 is the finest) have
    transformers."""
    attention = frozenset(attention)
    return (
        same(native="time_embed.0", diffusers="time_embedding.linear_1"),
        same(native="time_embed.2", diffusers="time_embedding.linear_2"),
        same(native="time_embed.cond_proj", diffusers="time_embedding.cond_proj"),
        same(native="input_blocks.0.0", diffusers="conv_in"),
        *_down(levels, attention),
        *_resnet("middle_block.0", "mid_block.resnets.0"),
        *_transformer("middle_block.1", "mid_block.attentions.0"),
        *_resnet("middle_block.2", "mid_block.resnets.1"),
        *_up(levels, attention),
        same(native="out.0", diffusers="conv_norm_out"),
        same(native="out.2", diffusers="conv_out"),
    )


def _down(levels: int, attention: frozenset[int]) -> Iterator[Weights]:
    for level in range(levels):
        first = 1 + level * (_LAYERS + 1)
        block = f"down_blocks.{level}"
        for layer in range(_LAYERS):
            yield from _resnet(f"input_blocks.{first + layer}.0", f"{block}.resnets.{layer}")
            if level in attention:
                yield from _transformer(f"input_blocks.{first + layer}.1", f"{block}.attentions.{layer}")
        if level < levels - 1:
            yield same(native=f"input_blocks.{first + _LAYERS}.0.op", diffusers=f"{block}.downsamplers.0.conv")


def _up(levels: int, attention: frozenset[int]) -> Iterator[Weights]:
    for step, level in enumerate(reversed(range(levels))):
        first = step * (_LAYERS + 1)
        block = f"up_blocks.{step}"
        for layer in range(_LAYERS + 1):
            yield from _resnet(f"output_blocks.{first + layer}.0", f"{block}.resnets.{layer}")
            if level in attention:
                yield from _transformer(f"output_blocks.{first + layer}.1", f"{block}.attentions.{layer}")
        if level > 0:
            last = f"output_blocks.{first + _LAYERS}.{2 if level in attention else 1}"
            yield same(native=f"{last}.conv", diffusers=f"{block}.upsamplers.0.conv")


def _resnet(native: str, diffusers: str) -> Iterator[Weights]:
    for ours, theirs in _RESNET.items():
        yield same(native=f"{native}.{ours}", diffusers=f"{diffusers}.{theirs}")


def _transformer(native: str, diffusers: str) -> Iterator[Weights]:
    """One transformer. ``fused`` is what diffusers' ``fuse_qkv_projections`` makes of it; ``processor`` is how files of
    the time of its attention processors name what is trained."""
    blocks = ".transformer_blocks.{i}"
    yield same(native=native + ".{m:norm|proj_in|proj_out}", diffusers=diffusers + ".{m:norm|proj_in|proj_out}")
    inner = blocks + ".{m:norm1|norm2|norm3|ff.net.0.proj|ff.net.2}"
    yield same(native=native + inner, diffusers=diffusers + inner)
    here, there = native + blocks, diffusers + blocks
    yield rows(
        "q k v",
        native={f"{here}.attn1.to_{x}": x for x in "qkv"},
        diffusers={f"{there}.attn1.to_{x}": x for x in "qkv"},
        processor={f"{there}.attn1.processor.to_{x}": x for x in "qkv"},
        fused={f"{there}.attn1.to_qkv": "q k v"},
    )
    yield same(native=f"{here}.attn2.to_q", diffusers=f"{there}.attn2.to_q", processor=f"{there}.attn2.processor.to_q")
    yield rows(
        "k v",
        native={f"{here}.attn2.to_{x}": x for x in "kv"},
        diffusers={f"{there}.attn2.to_{x}": x for x in "kv"},
        processor={f"{there}.attn2.processor.to_{x}": x for x in "kv"},
        fused={f"{there}.attn2.to_kv": "k v"},
    )
    yield same(
        native=here + ".attn{n:1|2}.to_out.0",
        diffusers=there + ".attn{n:1|2}.to_out.0",
        processor=there + ".attn{n:1|2}.processor.to_out",
    )
