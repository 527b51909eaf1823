"""LTX-2, 2.3 and 2.5 (48 blocks; video 4096 wide, audio 2048): LTX-Video's blocks twice, with attention across. Gated
attention (``to_gate_logits``) and modulated cross attention (``prompt_*``) came with 2.3.

The connectors between text encoder and transformer are a model of their own in diffusers; ComfyUI and the checkpoints
keep their blocks beside the transformer's.
"""

from __future__ import annotations

from .ltx import VIDEO
from .tables import Family, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "{a:attn1|attn2|audio_attn1|audio_attn2|audio_to_video_attn|video_to_audio_attn}."
_PROJECTION = "{m:to_q|to_k|to_v|to_out.0|to_gate_logits}"
_FEED_FORWARD = "net.{m:0.proj|2}"
_CONNECTOR = "{c:video|audio}_embeddings_connector."
_CONNECTOR_BLOCK = _CONNECTOR + "transformer_1d_blocks.{i}."
_DIFFUSERS_CONNECTORS = ("connectors.{c:video|audio}_connector.", "{c:video|audio}_connector.")

# native module of embedder and linear -> diffusers'
_MODULATIONS = {
    "audio_adaln_single": "audio_time_embed",
    "prompt_adaln_single": "prompt_adaln",
    "audio_prompt_adaln_single": "audio_prompt_adaln",
    "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
    "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
    "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
    "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
}


def _connectors(path: str) -> tuple[str, ...]:
    """A path as diffusers' LoRA files write it, and in its connectors themselves."""
    return tuple(connector + path for connector in _DIFFUSERS_CONNECTORS)


FAMILY = Family(
    name="ltx2",
    title="LTX-2",
    base_models=("ltx-2", "ltxav"),
    widths={_ATTENTION + _PROJECTION: (2048, 4096)},
    weights=(
        *VIDEO,
        same(native=_ATTENTION + _PROJECTION, diffusers=_ATTENTION + _PROJECTION),
        same(native=_ATTENTION + "q_norm", diffusers=_ATTENTION + "norm_q"),
        same(native=_ATTENTION + "k_norm", diffusers=_ATTENTION + "norm_k"),
        same(native=_BLOCK + "{f:ff|audio_ff}." + _FEED_FORWARD, diffusers=_BLOCK + "{f:ff|audio_ff}." + _FEED_FORWARD),
        same(
            native=_BLOCK + "{s:|audio_|prompt_|audio_prompt_}scale_shift_table",
            diffusers=_BLOCK + "{s:|audio_|prompt_|audio_prompt_}scale_shift_table",
        ),
        *(
            same(
                native=_BLOCK + f"scale_shift_table_a2v_ca_{side}",
                diffusers=_BLOCK + f"{side}_a2v_cross_attn_scale_shift_table",
            )
            for side in ("video", "audio")
        ),
        same(native="audio_patchify_proj", diffusers="audio_proj_in"),
        *(
            same(native=f"{native}.{part}", diffusers=f"{diffusers}.{part}")
            for native, diffusers in _MODULATIONS.items()
            for part in ("emb.timestep_embedder.linear_{m:1|2}", "linear")
        ),
        same(native="audio_caption_projection.linear_{m:1|2}", diffusers="audio_caption_projection.linear_{m:1|2}"),
        same(
            native="{m:audio_proj_out|audio_scale_shift_table|keyframes_abs_pos_embedding}",
            diffusers="{m:audio_proj_out|audio_scale_shift_table|keyframes_abs_pos_embedding}",
        ),
        same(
            native=_CONNECTOR_BLOCK + "attn1." + _PROJECTION,
            diffusers=_connectors("transformer_blocks.{i}.attn1." + _PROJECTION),
        ),
        same(native=_CONNECTOR_BLOCK + "attn1.q_norm", diffusers=_connectors("transformer_blocks.{i}.attn1.norm_q")),
        same(native=_CONNECTOR_BLOCK + "attn1.k_norm", diffusers=_connectors("transformer_blocks.{i}.attn1.norm_k")),
        same(
            native=_CONNECTOR_BLOCK + "ff." + _FEED_FORWARD,
            diffusers=_connectors("transformer_blocks.{i}.ff." + _FEED_FORWARD),
        ),
        same(native=_CONNECTOR + "learnable_registers", diffusers=_connectors("learnable_registers")),
        same(
            native="text_embedding_projection.aggregate_embed",
            diffusers=("connectors.text_proj_in", "text_proj_in"),
        ),
        same(
            native="text_embedding_projection.{c:video|audio}_aggregate_embed",
            diffusers=("connectors.{c:video|audio}_text_proj_in", "{c:video|audio}_text_proj_in"),
        ),
    ),
)
