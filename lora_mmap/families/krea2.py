"""Krea 2 (28 blocks, width 6144, 48 query and 12 key heads; text fusion of width 2560, 20 and 20). Krea's names, which
ComfyUI keeps, <-> diffusers'; SimpleTuner fuses q, k and v, which grouped queries make 4 : 1 : 1."""

from __future__ import annotations

from .tables import Family, Weights, rows, same

_BLOCK, _DIFFUSERS_BLOCK = "blocks.{i}.", "transformer_blocks.{i}."
_TEXT = "txtfusion.{t:layerwise_blocks|refiner_blocks}.{i}."
_DIFFUSERS_TEXT = "text_fusion.{t:layerwise_blocks|refiner_blocks}.{i}."


def _block(native: str, diffusers: str, sizes: str) -> tuple[Weights, ...]:
    """What a block of the transformer and one of the text fusion have in common."""
    return (
        rows(
            sizes,
            native={native + "attn.wq": "q", native + "attn.wk": "k", native + "attn.wv": "v"},
            diffusers={diffusers + "attn.to_q": "q", diffusers + "attn.to_k": "k", diffusers + "attn.to_v": "v"},
            fused={diffusers + "attn.to_qkv": "q k v"},
        ),
        same(native=native + "attn.gate", diffusers=diffusers + "attn.to_gate"),
        same(native=native + "attn.wo", diffusers=diffusers + "attn.to_out.0"),
        same(native=native + "attn.qknorm.qnorm", diffusers=diffusers + "attn.norm_q"),
        same(native=native + "attn.qknorm.knorm", diffusers=diffusers + "attn.norm_k"),
        same(native=native + "mlp.{m:gate|up|down}", diffusers=diffusers + "ff.{m:gate|up|down}"),
        same(native=native + "prenorm", diffusers=diffusers + "norm1"),
        same(native=native + "postnorm", diffusers=diffusers + "norm2"),
    )


FAMILY = Family(
    name="krea2",
    title="Krea 2",
    widths={_DIFFUSERS_BLOCK + "attn.to_q": (6144,)},
    weights=(
        *_block(_BLOCK, _DIFFUSERS_BLOCK, "q:4 k v"),
        *_block(_TEXT, _DIFFUSERS_TEXT, "q k v"),
        # Krea's is flat, diffusers' [6, width], element by element the same
        same(native=_BLOCK + "mod.lin", diffusers=_DIFFUSERS_BLOCK + "scale_shift_table"),
        same(native="txtfusion.projector", diffusers="text_fusion.projector"),
        same(native="first", diffusers="img_in"),
        same(native="tmlp.0", diffusers="time_embed.linear_1"),
        same(native="tmlp.2", diffusers="time_embed.linear_2"),
        same(native="tproj.1", diffusers="time_mod_proj"),
        same(native="txtmlp.0", diffusers="txt_in.norm"),
        same(native="txtmlp.1", diffusers="txt_in.linear_1"),
        same(native="txtmlp.3", diffusers="txt_in.linear_2"),
        same(native="last.linear", diffusers="final_layer.linear"),
        same(native="last.norm", diffusers="final_layer.norm"),
        same(native="last.modulation.lin", diffusers="final_layer.scale_shift_table"),
    ),
)
