"""The methods of Nunchaku's transformers as functions that take the model, quantised or not."""

from __future__ import annotations

from torch import nn

from .entries import AnySource
from .loras_v2 import reset_lora_v2, set_lora_strength_v2, update_lora_params_v2
from .report import Report


def update_lora_params(model: nn.Module, path_or_state_dict: AnySource) -> Report:
    """Replaces whatever is composed into ``model`` by one adapter at strength 1. Raises what ``compose`` raises."""
    return update_lora_params_v2(model, path_or_state_dict)


def set_lora_strength(model: nn.Module, strength: float = 1) -> Report | None:
    """The adapter at another strength, 0 and negative ones too: reads nothing, and the model's own ranks stay as they
    are. None where nothing was composed."""
    return set_lora_strength_v2(model, strength)


def reset_lora(model: nn.Module) -> bool:
    """Takes everything out, byte for byte. True when there was something to undo."""
    return reset_lora_v2(model)
