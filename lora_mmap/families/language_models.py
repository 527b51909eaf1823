"""Decoders of the Llama line as transformers names them (Llama, Mistral, Qwen 2 to 3, Gemma, Phi, GLM, DeepSeek):
text encoders of diffusion models, and models in their own right.

Which levels (``model``, ``language_model``) stand before a layer depends on class and version of transformers; prefixes
and levels take care of them. Serving engines, and Phi 3 itself, fuse q, k and v (``qkv_proj``) and the MLP's gate and
up projection (``gate_up_proj``). Where heads share k and v, q has a multiple of their rows: each multiple that models
have is a line, and shapes tell which of them holds.
"""

from __future__ import annotations

from .tables import Family, Weights, rows, same

_LAYER = "layers.{i}."
_ATTENTION = _LAYER + "self_attn."
_HEADS_PER_KEY = (1, 2, 3, 4, 5, 6, 7, 8, 16)


def _attention(q_rows: int) -> Weights:
    return rows(
        f"q:{q_rows} k v",
        diffusers={f"{_ATTENTION}{piece}_proj": piece for piece in "qkv"},
        fused={_ATTENTION + "qkv_proj": "q k v"},
    )


def _mlp(path: str) -> tuple[Weights, ...]:
    return (
        rows(
            "gate up",
            diffusers={path + "gate_proj": "gate", path + "up_proj": "up"},
            fused={path + "gate_up_proj": "gate up"},
        ),
        same(diffusers=path + "down_proj"),
    )


FAMILY = Family(
    name="language_model",
    title="Language model",
    components=("text_encoder", "text_encoder_2", "text_encoder_3"),
    once=True,
    written=dict.fromkeys(("kohya", "diffusers", "peft", "comfyui"), ""),
    weights=(
        *(_attention(heads) for heads in _HEADS_PER_KEY),
        same(diffusers=_ATTENTION + "{m:o_proj|dense|q_norm|k_norm|q_layernorm|k_layernorm}"),
        same(diffusers=_ATTENTION + "{m:q_a_proj|q_a_layernorm|q_b_proj}"),
        same(diffusers=_ATTENTION + "{m:kv_a_proj_with_mqa|kv_a_layernorm|kv_b_proj}"),
        *_mlp(_LAYER + "mlp."),
        *_mlp(_LAYER + "mlp.experts.{expert}."),
        *_mlp(_LAYER + "mlp.{m:shared_expert|shared_experts}."),
        same(diffusers=_LAYER + "mlp.{m:fc1|fc2|gate|shared_expert_gate}"),
        same(diffusers=_LAYER + "mlp.experts.{m:gate_up_proj|down_proj}"),
        same(diffusers=_LAYER + "block_sparse_moe.experts.{expert}.w{n:1|2|3}"),
        same(diffusers=_LAYER + "block_sparse_moe.gate"),
        same(diffusers=_LAYER + "{m:input|post_attention|pre_feedforward|post_feedforward}_layernorm"),
        same(diffusers="{m:embed_tokens|norm|final_layernorm|lm_head}"),
    ),
)
