"""Cosmos 1.0 (28 blocks of width 4096, 36 of 5120): three sub-blocks a block, each with its modulation, where diffusers
has attentions, norms and a feed forward."""

from __future__ import annotations

from .tables import Family, Weights, same

_BLOCK, _DIFFUSERS_BLOCK = "blocks.block{i}.blocks.", "transformer_blocks.{i}."


def _attention(number: int) -> tuple[Weights, ...]:
    native, diffusers = f"{_BLOCK}{number}.block.attn.", f"{_DIFFUSERS_BLOCK}attn{number + 1}."
    return (
        *(same(native=f"{native}to_{part}.0", diffusers=f"{diffusers}to_{part}") for part in "qkv"),
        same(native=native + "to_out.0", diffusers=diffusers + "to_out.0"),
        same(native=native + "to_q.1", diffusers=diffusers + "norm_q"),
        same(native=native + "to_k.1", diffusers=diffusers + "norm_k"),
    )


def _modulation(native: str, diffusers: str) -> Weights:
    return same(native=native + "adaLN_modulation.{n:1|2}", diffusers=diffusers + ".linear_{n:1|2}")


FAMILY = Family(
    name="cosmos1",
    title="Cosmos 1.0",
    widths={"transformer_blocks.{i}.attn1.to_q": (4096, 5120), "transformer_blocks.{i}.attn2.to_k": (1024,)},
    weights=(
        *_attention(0),
        *_attention(1),
        same(native=_BLOCK + "2.block.layer1", diffusers=_DIFFUSERS_BLOCK + "ff.net.0.proj"),
        same(native=_BLOCK + "2.block.layer2", diffusers=_DIFFUSERS_BLOCK + "ff.net.2"),
        *(_modulation(f"{_BLOCK}{n}.", f"{_DIFFUSERS_BLOCK}norm{n + 1}") for n in range(3)),
        _modulation("final_layer.", "norm_out"),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="x_embedder.proj.1", diffusers="patch_embed.proj"),
        same(native="t_embedder.1.linear_{n:1|2}", diffusers="time_embed.t_embedder.linear_{n:1|2}"),
        same(native="affline_norm", diffusers="time_embed.norm"),
        same(
            native="extra_pos_embedder.{m:pos_emb_t|pos_emb_h|pos_emb_w}",
            diffusers="learnable_pos_embed.{m:pos_emb_t|pos_emb_h|pos_emb_w}",
        ),
    ),
)
