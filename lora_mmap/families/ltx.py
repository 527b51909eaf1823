"""LTX-Video (28 blocks of width 2048, 48 of width 4096). Lightricks' names, which ComfyUI keeps, and diffusers' differ
in the embeddings and the norms of queries and keys only."""

from __future__ import annotations

from .tables import Family, TextEncoder, Weights, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "{a:attn1|attn2}."
_EMBEDDER = "emb.timestep_embedder.linear_{m:1|2}"

# LTX-2's video half has these too.
VIDEO: tuple[Weights, ...] = (
    same(native="patchify_proj", diffusers="proj_in"),
    same(native="adaln_single." + _EMBEDDER, diffusers="time_embed." + _EMBEDDER),
    same(native="adaln_single.linear", diffusers="time_embed.linear"),
    same(native="caption_projection.linear_{m:1|2}", diffusers="caption_projection.linear_{m:1|2}"),
    same(native="{m:proj_out|scale_shift_table}", diffusers="{m:proj_out|scale_shift_table}"),
)

FAMILY = Family(
    name="ltx_video",
    title="LTX-Video",
    base_models=("ltxv", "ltx-video"),
    text_encoders={"text_encoder": TextEncoder("t5", "t5xxl.transformer")},
    widths={_ATTENTION + "{m:to_q|to_k|to_v|to_out.0}": (2048, 4096)},
    weights=(
        *VIDEO,
        same(
            native=_ATTENTION + "{m:to_q|to_k|to_v|to_out.0}",
            diffusers=_ATTENTION + "{m:to_q|to_k|to_v|to_out.0}",
        ),
        same(native=_ATTENTION + "q_norm", diffusers=_ATTENTION + "norm_q"),
        same(native=_ATTENTION + "k_norm", diffusers=_ATTENTION + "norm_k"),
        same(native=_BLOCK + "ff.net.{m:0.proj|2}", diffusers=_BLOCK + "ff.net.{m:0.proj|2}"),
        same(native=_BLOCK + "scale_shift_table", diffusers=_BLOCK + "scale_shift_table"),
    ),
)
