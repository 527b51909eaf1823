"""ACE-Step: 1.5 (24 layers, width 2048; 16 query and 8 key heads) and 1.0 (24 blocks, width 2560).

1.5's checkpoint and ComfyUI hold decoder, encoder and tokenizer in one model, its trainers the decoder alone; diffusers
has decoder and encoder as models of their own, with other names in their attentions. 1.0 has one naming.
"""

from __future__ import annotations

from .tables import Family, Weights, same

_LAYER = "layers.{i}."
_ATTENTION = _LAYER + "{a:self_attn|cross_attn}."
_ENCODER = "{e:lyric_encoder|timbre_encoder}."
_ENCODER_LAYER = _ENCODER + _LAYER
_V1 = "transformer_blocks.{i}."


def _decoder(path: str, diffusers: str = "") -> Weights:
    return same(native="decoder." + path, decoder=path, diffusers=diffusers or path)


def _encoder(path: str, diffusers: str = "") -> Weights:
    return same(native="encoder." + path, diffusers=diffusers or path)


def _attention(whose: str, native: str, diffusers: str) -> Weights:
    make = _decoder if whose == "decoder" else _encoder
    prefix = _ATTENTION if whose == "decoder" else _ENCODER_LAYER + "self_attn."
    return make(prefix + native, prefix + diffusers)


_NAMES = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "o_proj": "to_out.0",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}

FAMILY = Family(
    name="ace_step",
    title="ACE-Step",
    widths={_V1 + "attn.{m:to_q|to_k|to_v|to_out.0}": (2560,)},
    written={"peft": "decoder"},
    base_models=("ace-step", "acestep"),
    weights=(
        *(_attention("decoder", native, diffusers) for native, diffusers in _NAMES.items()),
        _decoder(_LAYER + "mlp.{m:gate_proj|up_proj|down_proj}"),
        _decoder(_LAYER + "{m:self_attn_norm|cross_attn_norm|mlp_norm|scale_shift_table}"),
        _decoder("{t:time_embed|time_embed_r}.{m:linear_1|linear_2|time_proj}"),
        _decoder("{m:condition_embedder|norm_out|scale_shift_table}"),
        _decoder("proj_in.1", "proj_in_conv"),
        _decoder("proj_out.1", "proj_out_conv"),
        *(_attention("encoder", native, diffusers) for native, diffusers in _NAMES.items()),
        _encoder(_ENCODER_LAYER + "mlp.{m:gate_proj|up_proj|down_proj}"),
        _encoder(_ENCODER_LAYER + "{m:input_layernorm|post_attention_layernorm}"),
        _encoder(_ENCODER + "{m:embed_tokens|norm|special_token}"),
        _encoder("text_projector"),
        same(native="null_condition_emb", diffusers="null_condition_emb"),
        same(native=_V1 + "attn.{m:to_q|to_k|to_v|to_out.0}"),
        same(native=_V1 + "cross_attn.{m:to_q|to_k|to_v|to_out.0|add_q_proj|add_k_proj|add_v_proj|to_add_out}"),
        same(native=_V1 + "ff.{m:inverted_conv|depth_conv|point_conv}.conv"),
        same(native=_V1 + "scale_shift_table"),
        same(native="lyric_encoder.encoders.{i}.self_attn.{m:linear_q|linear_k|linear_v|linear_out|linear_pos}"),
        same(native="lyric_encoder.encoders.{i}.feed_forward.{m:w_1|w_2}"),
        same(native="lyric_encoder.embed.out.0"),
        same(native="timestep_embedder.linear_{m:1|2}"),
        same(native="{m:t_block.1|speaker_embedder|genre_embedder|lyric_embs|lyric_proj}"),
        same(native="projectors.{i}.{m:0|2|4}"),
        same(native="proj_in.early_conv_layers.{m:0|1|2}"),
        same(native="final_layer.{m:linear|scale_shift_table}"),
    ),
)
