"""PEFT's kinds of LoRA whose factors look like any other's and are not added as B @ A to the weights as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONVERT = "convert it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"

# init_lora_weights that change the base weights when training begins; the adapter is relative to those. The other ones
# (gaussian, eva, orthogonal, mica) only choose where the factors start.
_RESIDUAL = {
    "pissa": f"it is relative to base weights without their principal components: {_CONVERT}",
    "corda": f"it is relative to base weights without the components that it adapts: {_CONVERT}",
    "olora": f"it is relative to base weights less its factors at the start: {_CONVERT}",
    "lora_ga": f"it is relative to base weights less its factors at the start: {_CONVERT}",
    "loftq": "it is relative to base weights that LoftQ quantised, and belongs on those",
}

# Fields that, when set, make the forward pass another one.
_FORWARD = {
    "alora_invocation_tokens": "activated LoRA applies from certain tokens of a prompt on, and cannot be fused",
    "use_qalora": "QALoRA applies A to the means of groups of inputs, and is not supported yet",
    "use_bdlora": "block-diagonal LoRA (BD-LoRA) is not supported yet",
    "arrow_config": "Arrow chooses between adapters token by token, and cannot be fused",
    "kasa_config": "KaSA truncates the base weights, and is not supported yet",
    "layer_replication": "it is for a model whose layers were replicated, and is not supported yet",
}


def peft_obstacle(fields: Mapping[str, Any]) -> str:
    """Why what a configuration goes with is no plain LoRA, or an empty text."""
    start = str(fields.get("init_lora_weights")).lower()
    for name, why in _RESIDUAL.items():
        if start == name or (name in ("pissa", "corda") and start.startswith(name)):
            return f"init_lora_weights={start!r}, {why}"
    return next((why for name, why in _FORWARD.items() if fields.get(name)), "")
