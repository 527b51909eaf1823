"""Nunchaku's W4A16 linears: modulation layers, which get a side branch, and which are left alone unless asked for."""

from __future__ import annotations

import os

from torch import nn

from ..errors import ArgumentError

_VARIABLE = "QWENIMAGE_LORA_APPLY_AWQ_MOD"
_MODULATION = ("img_mod.1", "txt_mod.1")
SKIPPED = f"AWQ modulation is left alone unless apply_awq_mod=True or {_VARIABLE}=1 asks for it"


def is_one(module: nn.Module) -> bool:
    """True for a module with AWQ's three tensors."""
    return all(hasattr(module, key) for key in ("qweight", "wscales", "wzeros"))


def is_modulation(name: str) -> bool:
    """True for the layers of Qwen-Image's blocks that make shifts, scales and gates."""
    return name.endswith(tuple(f".{last}" for last in _MODULATION)) or name in _MODULATION


def wants_modulation(function: str, apply_awq_mod: object) -> bool:
    """What ``apply_awq_mod`` asks for; ``"auto"`` leaves it to the environment. Raises ArgumentError."""
    if apply_awq_mod == "auto":
        return os.environ.get(_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")
    if not isinstance(apply_awq_mod, (bool, int)) or apply_awq_mod not in (0, 1):
        raise ArgumentError(f"[{function}] apply_awq_mod is {apply_awq_mod!r}, expected True, False or 'auto'")
    return bool(apply_awq_mod)
