"""Wan 2.1 and 2.2 (widths 1536, 3072, 5120): text, image and first-last-frame to video, Fun, Camera, VACE, Animate, and
the models built on them (SkyReels V2, SCAIL, HuMo, S2V). diffusers numbers the norms of a block by their place, Wan
counts the one before cross attention last: ``norm3`` is diffusers' ``norm2``, and the other two have no weights.
"""

from __future__ import annotations

from .tables import Family, Naming, TextEncoder, Weights, rows, same
from .wan_animate import ANIMATE
from .wan_conditions import CONDITIONS

_BLOCK = "{b:blocks|vace_blocks}.{i}."
_SELF, _CROSS = _BLOCK + "self_attn.", _BLOCK + "cross_attn."
_ATTN1, _ATTN2 = _BLOCK + "attn1.", _BLOCK + "attn2."
_EMBEDDER = "condition_embedder."


def _attention(native: str, diffusers: str, fused: str) -> tuple[Weights, ...]:
    """One attention. diffusers fuses q, k and v of self attention, k and v only of cross attention; the diffusers model
    of Animate 2 has the native path with diffusers' projections."""
    together = "q k v" if fused == "to_qkv" else "k v"
    apart = [piece for piece in "qkv" if piece not in together]
    return (
        rows(
            together,
            native={native + piece: piece for piece in together.split()},
            diffusers={f"{diffusers}to_{piece}": piece for piece in together.split()},
            fused={diffusers + fused: together},
            animate2={f"{native}to_{piece}": piece for piece in together.split()},
        ),
        *(
            same(native=native + piece, diffusers=f"{diffusers}to_{piece}", animate2=f"{native}to_{piece}")
            for piece in apart
        ),
        same(native=native + "o", diffusers=diffusers + "to_out.0", animate2=native + "to_out.0"),
        same(native=native + "norm_q", diffusers=diffusers + "norm_q"),
        same(native=native + "norm_k", diffusers=diffusers + "norm_k"),
    )


FAMILY = Family(
    name="wan",
    title="Wan",
    namings=(Naming("extracted", in_models=False),),
    text_encoders={"text_encoder": TextEncoder("t5", "umt5xxl.transformer")},
    weights=(
        *_attention(_SELF, _ATTN1, "to_qkv"),
        *_attention(_CROSS, _ATTN2, "to_kv"),
        rows(
            "k v",
            native={_CROSS + "k_img": "k", _CROSS + "v_img": "v"},
            diffusers={_ATTN2 + "add_k_proj": "k", _ATTN2 + "add_v_proj": "v"},
            fused={_ATTN2 + "to_added_kv": "k v"},
            animate2={_CROSS + "add_k_proj": "k", _CROSS + "add_v_proj": "v"},
        ),
        same(native=_CROSS + "norm_k_img", diffusers=_ATTN2 + "norm_added_k", animate2=_CROSS + "norm_added_k"),
        same(native=_BLOCK + "ffn.0", diffusers=_BLOCK + "ffn.net.0.proj"),
        same(native=_BLOCK + "ffn.2", diffusers=_BLOCK + "ffn.net.2"),
        same(native=_BLOCK + "norm3", diffusers=_BLOCK + "norm2"),
        # `diff_m` extractions name the block or head that the parameter belongs to
        same(
            native=_BLOCK + "modulation",
            diffusers=_BLOCK + "scale_shift_table",
            extracted="{b:blocks|vace_blocks}.{i}",
        ),
        same(native="head.modulation", diffusers="scale_shift_table", extracted="head"),
        same(native="head.head", diffusers="proj_out"),
        same(native="patch_embedding", diffusers="patch_embedding"),
        same(native="text_embedding.0", diffusers=_EMBEDDER + "text_embedder.linear_1"),
        same(native="text_embedding.2", diffusers=_EMBEDDER + "text_embedder.linear_2"),
        same(native="time_embedding.0", diffusers=_EMBEDDER + "time_embedder.linear_1"),
        same(native="time_embedding.2", diffusers=_EMBEDDER + "time_embedder.linear_2"),
        same(native="time_projection.1", diffusers=_EMBEDDER + "time_proj"),
        same(native="img_emb.emb_pos", diffusers=_EMBEDDER + "image_embedder.pos_embed"),
        same(native="img_emb.proj.0", diffusers=_EMBEDDER + "image_embedder.norm1"),
        same(native="img_emb.proj.1", diffusers=_EMBEDDER + "image_embedder.ff.net.0.proj"),
        same(native="img_emb.proj.3", diffusers=_EMBEDDER + "image_embedder.ff.net.2"),
        same(native="img_emb.proj.4", diffusers=_EMBEDDER + "image_embedder.norm2"),
        same(native="vace_blocks.{i}.before_proj", diffusers="vace_blocks.{i}.proj_in"),
        same(native="vace_blocks.{i}.after_proj", diffusers="vace_blocks.{i}.proj_out"),
        same(native="vace_patch_embedding", diffusers="vace_patch_embedding"),
        *CONDITIONS,
        *ANIMATE,
    ),
)
