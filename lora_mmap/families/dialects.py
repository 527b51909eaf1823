"""How files of a dialect begin and end the key of a module, and which naming's path stands between."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ArgumentError
from .tables import Family

# Diffusers has these as components of their own pipelines, beside the transformer; paths begin with their names.
_OWN_COMPONENTS = ("connectors.", "text_conditioner.")
_KOHYA_ENCODERS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}


@dataclass(frozen=True)
class Dialect:
    """``naming``: what it writes unless a family says otherwise. ``down``, ``up``: the factors' endings."""

    name: str
    naming: str
    down: str
    up: str
    flattened: bool = False

    def stem(self, path: str, component: str, family: Family, part: Family) -> str:
        """The key's beginning, up to the factor's ending. ``part`` is the table of the component itself: ``family``, or
        one of its text encoders."""
        if self.flattened:
            return _kohya_prefix(component, family, part) + path.replace(".", "_")
        if self.name == "peft":
            return "base_model.model." + path
        if self.name == "comfyui":
            return _comfyui_prefix(component, family) + path
        return path if path.startswith(_OWN_COMPONENTS) else _diffusers_prefix(component, family) + path


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("kohya", "native", "lora_down.weight", "lora_up.weight", flattened=True),
        Dialect("diffusers", "diffusers", "lora_A.weight", "lora_B.weight"),
        Dialect("peft", "diffusers", "lora_A.weight", "lora_B.weight"),
        Dialect("comfyui", "native", "lora_A.weight", "lora_B.weight"),
    )
}


def _kohya_prefix(component: str, family: Family, part: Family) -> str:
    """sd-scripts numbers the text encoders where there are several; T5 is the third for Flux.1, too."""
    if component == "denoiser":
        return "lora_unet_"
    if part.name == "t5":
        return "lora_te3_"
    return "lora_te_" if list(family.text_encoders or ()) == ["text_encoder"] else _KOHYA_ENCODERS[component]


def _diffusers_prefix(component: str, family: Family) -> str:
    if component == "denoiser":
        return "unet." if family.is_unet else "transformer."
    return component + "."


def _comfyui_prefix(component: str, family: Family) -> str:
    if component == "denoiser":
        return "diffusion_model."
    if family.text_encoders is None:
        raise ArgumentError(
            f"[spell] ComfyUI names a text encoder by its model: expected that family, not {family.name!r}"
        )
    return f"text_encoders.{family.text_encoders[component].comfyui}."
