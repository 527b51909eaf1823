"""MiniMax-H3 (width 5376, 56 heads of 128 features; video and audio).

Published single files, ComfyUI and the reference stack q, k and v in one matrix. The gated MLP's first matrix has its
gate first there; diffusers has the value first. DiffSynth-Studio trains on MiniMax's shards as they are stored: q, k
and v of the first head, of the second, ... Names and shapes are the same; only that it writes PEFT's ``default`` tells.
"""

from __future__ import annotations

from .tables import Family, Naming, Weights, rows, same


def _block(native: str, diffusers: str) -> tuple[Weights, ...]:
    return (
        rows(
            "q k v",
            native={native + "attn.qkv_proj": "q k v"},
            diffsynth={native + "attn.qkv_proj": "q k v interleaved by 128"},
            diffusers={f"{diffusers}attn.to_{piece}": piece for piece in "qkv"},
            fused={diffusers + "attn.to_qkv": "q k v"},
        ),
        same(native=native + "attn.out_proj", diffusers=diffusers + "attn.to_out.0"),
        same(native=native + "attn.q_norm", diffusers=diffusers + "attn.norm_q"),
        same(native=native + "attn.k_norm", diffusers=diffusers + "attn.norm_k"),
        rows(
            "gate value",
            native={native + "mlp.fc1": "gate value"},
            diffusers={diffusers + "ff.net.0.proj": "value gate"},
        ),
        same(native=native + "mlp.fc2", diffusers=diffusers + "ff.net.2"),
        same(native=native + "norm{m:1|2}", diffusers=diffusers + "norm{m:1|2}"),
    )


FAMILY = Family(
    name="minimax_h3",
    title="MiniMax-H3",
    widths={"transformer_blocks.{i}.attn.to_q": (5376,)},
    # PixArt has the same names with the MLP's halves in place.
    namings=(
        Naming("diffusers", beside="transformer_blocks.0.adaln_proj.linear"),
        Naming("native", beside="blocks.0.adaln_proj.linear"),
        Naming("diffsynth", in_models=False, infix="default"),
    ),
    weights=(
        *_block("blocks.{i}.", "transformer_blocks.{i}."),
        same(native="blocks.{i}.adaln_proj.linear", diffusers="transformer_blocks.{i}.adaln_proj.linear"),
        *_block("token_refiner.blocks.{i}.", "token_refiner.refiner_blocks.{i}."),
        same(native="token_refiner.final_norm", diffusers="token_refiner.final_norm"),
        same(native="video_patch_proj", diffusers="proj_in"),
        same(native="audio_patch_proj", diffusers="audio_proj_in"),
        same(native="condition_proj", diffusers="context_embedder"),
        same(native="time_embedder.proj_in", diffusers="time_embedder.linear_1"),
        same(native="time_embedder.proj_out", diffusers="time_embedder.linear_2"),
        same(native="final_layer.norm", diffusers="norm_out.norm"),
        same(native="final_layer.adaln_proj.linear", diffusers="norm_out.linear"),
        same(native="final_layer.video_out", diffusers="proj_out"),
        same(native="final_layer.audio_out", diffusers="audio_proj_out"),
    ),
)
