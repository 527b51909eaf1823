"""What is said of a group that is no plain low-rank pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..families.peft_tuners import PEFT_TUNERS
from .formula import Formula

Form = tuple[int | None, int | None]  # rows and columns, None where the tensors do not tell


@dataclass(frozen=True, slots=True)
class Recognised:
    """One group of tensors. ``kind``: ``supported`` has a formula for every parameter in ``forms``, ``unsupported`` is
    a known algorithm without, ``malformed`` is none that holds together, ``ignored`` does not change a model.

    ``scale`` multiplies what the tensors make, the user's strength aside; None where the algorithm has none or needs a
    value that is nowhere. ``forms`` tells, for each parameter of the module that changes, the matrix that its tensors
    belong to: output features, and input features (flattened for convolutions; 1 for vectors). ``detail`` is what else
    decides the arithmetic, in words. ``reason`` says what a supported group is, and why another is not.
    """

    group: int
    kind: Literal["supported", "unsupported", "malformed", "ignored"]
    reason: str = ""
    algorithm: str = ""
    rank: int | None = None
    scale: float | None = None
    scale_source: str = ""
    forms: dict[str, Form] = field(default_factory=dict)
    detail: str = ""
    formulas: dict[str, Formula] = field(default_factory=dict)


_TITLES = {
    "lora": "LoRA",
    "tucker": "LoRA in Tucker form (lora_mid)",
    "lora_bias": "LoRA with a trained bias (lora_bias)",
    "sparse_bias": "LoRA with a sparse bias (bias_values)",
    "scalar": "a scalar beside the factors (scalar)",
    "embedding": "LoRA on an embedding",
    "nunchaku": "LoRA in the packed order of Nunchaku's kernels",
    "dora": "DoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "glora": "GLoRA",
    "oft": "OFT",
    "boft": "BOFT",
    "oft_peft": "OFT as PEFT writes it",
    "boft_peft": "BOFT as PEFT writes it",
    "ia3": "(IA)3",
    "ia3_peft": "(IA)3 as PEFT writes it",
    "tlora": "T-LoRA",
    "full": "full difference (diff)",
    "norm": "norm difference (w_norm, b_norm)",
    "modulation": "modulation difference (diff_m)",
    "set": "a parameter to be replaced (set)",
    "whole": "whole weight (modules_to_save)",
    "reshape": "LoRA for a weight of another shape (reshape_weight)",
    "control_lora": "Control-LoRA (a ControlNet)",
    "checkpoint": "full checkpoint",
} | {tuner.algorithm: tuner.title for tuner in PEFT_TUNERS}


def title(algorithm: str) -> str:
    """What people call an algorithm."""
    return _TITLES[algorithm]
