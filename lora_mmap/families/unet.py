"""The UNet of Stable Diffusion 1, 2 and XL: CompVis' and Stability's numbering of its blocks (``native``, which ComfyUI
keeps) and diffusers' levels.

Natively, ``input_blocks`` and ``output_blocks`` count through: block 0 is the first convolution, then each level ``i``
takes three: two residual blocks ``j``, each with its attention, and a change of resolution; on the way up, three
residual blocks, the last of them with the change of resolution. So one formula holds for all depths; where the last
part of a step up stands (``upsamplers``) depends on which levels attend. Inside a transformer block both say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .tables import Naming, Weights, rows, same

_BLOCKS = (
    ("input_blocks.{i*3+j+1}.", "down_blocks.{i}."),
    ("output_blocks.{i*3+j}.", "up_blocks.{i}."),
)
_TRANSFORMERS = (
    *((native + "1.", diffusers + "attentions.{j}.") for native, diffusers in _BLOCKS),
    ("middle_block.1.", "mid_block.attentions.0."),
)
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

NAMINGS = (Naming("processor", in_models=False),)


def _resnet(native: str, diffusers: str) -> Iterator[Weights]:
    for ours, theirs in _RESNET.items():
        yield same(native=native + ours, diffusers=diffusers + theirs)


def _transformer(native: str, diffusers: str) -> Iterator[Weights]:
    """One transformer. ``fused`` is what diffusers' ``fuse_qkv_projections`` makes of it; ``processor`` is how files of
    the time of its attention processors name what is trained."""
    ends = "{m:norm|proj_in|proj_out}"
    yield same(native=native + ends, diffusers=diffusers + ends)
    here, there = native + "transformer_blocks.{n}.", diffusers + "transformer_blocks.{n}."
    inner = "{m:norm1|norm2|norm3|ff.net.0.proj|ff.net.2}"
    yield same(native=here + inner, diffusers=there + inner)
    yield rows(
        "q k v",
        native={f"{here}attn1.to_{x}": x for x in "qkv"},
        diffusers={f"{there}attn1.to_{x}": x for x in "qkv"},
        processor={f"{there}attn1.processor.to_{x}": x for x in "qkv"},
        fused={f"{there}attn1.to_qkv": "q k v"},
    )
    yield same(native=here + "attn2.to_q", diffusers=there + "attn2.to_q", processor=there + "attn2.processor.to_q")
    yield rows(
        "k v",
        native={f"{here}attn2.to_{x}": x for x in "kv"},
        diffusers={f"{there}attn2.to_{x}": x for x in "kv"},
        processor={f"{there}attn2.processor.to_{x}": x for x in "kv"},
        fused={f"{there}attn2.to_kv": "k v"},
    )
    yield same(
        native=here + "attn{a:1|2}.to_out.0",
        diffusers=there + "attn{a:1|2}.to_out.0",
        processor=there + "attn{a:1|2}.processor.to_out",
    )


def text_width(columns: int) -> dict[str, tuple[int, ...]]:
    """The ``widths`` of a UNet whose text is so wide: its keys' projections in all blocks, under both names."""
    places = (place for names in _TRANSFORMERS for place in names)
    return {place + "transformer_blocks.{n}.attn2.to_k": (columns,) for place in places}


def upsamplers(attention: Sequence[bool]) -> Iterator[Weights]:
    """What doubles the resolution, by steps on the way up: natively it follows the attention, where there is one."""
    for step, attends in enumerate(attention):
        native = f"output_blocks.{3 * step + 2}.{2 if attends else 1}.conv"
        yield same(native=native, diffusers=f"up_blocks.{step}.upsamplers.0.conv")


UNET: tuple[Weights, ...] = (
    same(native="time_embed.0", diffusers="time_embedding.linear_1"),
    same(native="time_embed.2", diffusers="time_embedding.linear_2"),
    same(native="time_embed.cond_proj", diffusers="time_embedding.cond_proj"),
    same(native="input_blocks.0.0", diffusers="conv_in"),
    *(weights for ours, theirs in _BLOCKS for weights in _resnet(ours + "0.", theirs + "resnets.{j}.")),
    *(weights for ours, theirs in _TRANSFORMERS for weights in _transformer(ours, theirs)),
    same(native="input_blocks.{i*3+3}.0.op", diffusers="down_blocks.{i}.downsamplers.0.conv"),
    *_resnet("middle_block.0.", "mid_block.resnets.0."),
    *_resnet("middle_block.2.", "mid_block.resnets.1."),
    same(native="out.0", diffusers="conv_norm_out"),
    same(native="out.2", diffusers="conv_out"),
)
