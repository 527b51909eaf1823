"""Keys that ride along in adapter files and are no adapter's tensors. Asked only of keys that no suffix explains."""

from __future__ import annotations

from typing import NamedTuple


class Rider(NamedTuple):
    """A key that begins and ends so, and why it is nothing to apply. Texts, not patterns: hostile keys are long."""

    begins: str
    ends: str
    why: str


_EMBEDDING = "a textual inversion's embedding, for the tokenizer and text encoder, not for a weight"
_OPTIMIZER = "the state of an optimizer"
_COUNTER = "a counter of the training"
_PROMPT = "a trained prompt, given to the model as input, not added to a weight"

RIDERS: tuple[Rider, ...] = (
    Rider("bundle_emb.", "", _EMBEDDING),  # OneTrainer, SwarmUI: bundle_emb.<token>.{string_to_param.*, clip_l, clip_g}
    Rider("string_to_param.", "", _EMBEDDING),  # Automatic1111
    Rider("string_to_token.", "", _EMBEDDING),
    Rider("learned_embeds", "", _EMBEDDING),
    Rider("text_encoders_0", "", _EMBEDDING),  # diffusers' pivotal tuning: one entry per text encoder
    Rider("text_encoders_1", "", _EMBEDDING),
    Rider("prompt_embeddings", "", _PROMPT),  # PEFT: prompt tuning, P-tuning, CPT
    Rider("prompt_encoder.", "", _PROMPT),
    Rider("prefix_task_", "", _PROMPT),  # PEFT: multitask prompt tuning
    Rider("base_model.prompt_encoder.", "", _PROMPT),
    Rider("optimizer.", "", _OPTIMIZER),
    Rider("optimizer_state", "", _OPTIMIZER),
    Rider("param_groups", "", _OPTIMIZER),
    Rider("lr_scheduler.", "", _OPTIMIZER),
    Rider("", ".exp_avg", _OPTIMIZER),
    Rider("", ".exp_avg_sq", _OPTIMIZER),
    Rider("", ".momentum_buffer", _OPTIMIZER),
    Rider("", ".num_batches_tracked", _COUNTER),
    Rider("", ".num_updates", _COUNTER),
    Rider("__metadata__", "", "metadata that ended up among the tensors"),
    Rider("modelspec.", "", "metadata that ended up among the tensors"),
    Rider("ss_", "", "metadata that ended up among the tensors"),
)

# Keys that stand alone.
WHOLE_KEYS: dict[str, str] = {
    **dict.fromkeys(("emb_params", "clip_l", "clip_g", "t5xxl", "<*>", "*"), _EMBEDDING),
    **dict.fromkeys(("step", "steps", "global_step", "epoch", "iteration", "num_updates", "_step"), _COUNTER),
    "lora_controlnet": "the mark of a Control-LoRA",
}


def rider(key: str) -> str | None:
    """Why a key is no adapter's tensor, or None where it may be one. Looks at each end of the key once."""
    why = WHOLE_KEYS.get(key)
    if why is not None:
        return why
    return next((r.why for r in RIDERS if key.startswith(r.begins) and key.endswith(r.ends)), None)
