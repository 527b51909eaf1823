"""How trainers write the key of a module's tensors: one ``Spelling`` a dialect, with the module path left open."""

from collections.abc import Mapping
from typing import NamedTuple

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # key -> (dtype, shape), as spelled.hollow_file takes them
RANK = 4


class Spelling(NamedTuple):
    """``flat``: the path's dots are underscores. ``alpha``: the ending of a third key, where there is one."""

    prefix: str
    flat: bool
    down: str
    up: str
    alpha: str = ""

    def stem(self, module: str) -> str:
        return self.prefix + (module.replace(".", "_") if self.flat else module)

    def keys(self, module: str) -> list[str]:
        return [self.stem(module) + ending for ending in (self.down, self.up, self.alpha) if ending]


_KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")
_PEFT = (".lora_A.weight", ".lora_B.weight")
_DIFFUSERS_OLD = (".lora.down.weight", ".lora.up.weight")
_LINEAR_LAYER = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
_DEFAULT = (".lora_A.default.weight", ".lora_B.default.weight")
_DEFAULT_0 = (".lora_A.default_0.weight", ".lora_B.default_0.weight")

# What a denoiser's file may look like, whatever names its model has.
DENOISER = {
    "kohya": Spelling("lora_unet_", True, *_KOHYA),
    "kohya_two_underscores": Spelling("lora_unet__", True, *_KOHYA),
    "kohya_dotted_path": Spelling("lora_unet_", False, *_KOHYA),
    "onetrainer": Spelling("lora_transformer_", True, *_KOHYA),
    "lycoris": Spelling("lycoris_", True, *_KOHYA),
    "peft": Spelling("base_model.model.", False, *_PEFT),
    "peft_in_transformer": Spelling("base_model.model.transformer.", False, *_PEFT),
    "peft_in_diffusion_model": Spelling("base_model.model.transformer.diffusion_model.", False, *_PEFT),
    "transformer_of_peft": Spelling("transformer.base_model.model.", False, *_PEFT),
    "unet_of_peft": Spelling("unet.base_model.model.", False, *_PEFT),
    "peft_default": Spelling("", False, *_DEFAULT),
    "peft_second_adapter": Spelling("transformer.", False, *_DEFAULT_0),
    "peft_without_weight": Spelling("transformer.", False, ".lora_A", ".lora_B"),
    "bare": Spelling("", False, *_PEFT),
    "lightx2v": Spelling("", False, *_KOHYA),
    "diffusers_transformer": Spelling("transformer.", False, *_PEFT),
    "diffusers_unet": Spelling("unet.", False, *_PEFT),
    "diffusers_old": Spelling("unet.", False, *_DIFFUSERS_OLD),
    "diffusers_old_transformer": Spelling("transformer.", False, *_DIFFUSERS_OLD, ".alpha"),
    "diffusers_linear_layer": Spelling("unet.", False, *_LINEAR_LAYER),
    "comfyui": Spelling("diffusion_model.", False, *_PEFT),
    "comfyui_kohya_words": Spelling("diffusion_model.", False, *_KOHYA),
    "full_checkpoint": Spelling("model.diffusion_model.", False, *_PEFT),
    "transformer_of_comfyui": Spelling("transformer.diffusion_model.", False, *_PEFT),
    "last_ben": Spelling("lora_unet_", True, "_.lora_down.weight", "_.lora_up.weight", "_.alpha"),
}

_TE = "text_model."  # transformers < 5 had this level in every CLIP, so most files say it
TEXT_ENCODER = {
    "clip_l": {
        "kohya_sd15": Spelling("lora_te_text_model_", True, *_KOHYA),
        "kohya_sdxl": Spelling("lora_te1_text_model_", True, *_KOHYA),
        "kohya_transformers_5": Spelling("lora_te1_", True, *_KOHYA),
        "diffusers": Spelling("text_encoder." + _TE, False, *_PEFT),
        "diffusers_linear_layer": Spelling("text_encoder." + _TE, False, *_LINEAR_LAYER),
        "comfyui": Spelling("text_encoders.clip_l.transformer." + _TE, False, *_PEFT),
        "peft": Spelling("base_model.model." + _TE, False, *_PEFT),
    },
    "clip_g": {
        "kohya": Spelling("lora_te2_text_model_", True, *_KOHYA),
        "kohya_transformers_5": Spelling("lora_te2_", True, *_KOHYA),
        "diffusers": Spelling("text_encoder_2." + _TE, False, *_PEFT),
        "comfyui": Spelling("text_encoders.clip_g.transformer." + _TE, False, *_PEFT),
    },
    "t5": {
        "kohya_flux": Spelling("lora_te3_", True, *_KOHYA),
        "onetrainer_flux": Spelling("lora_te2_", True, *_KOHYA),
        "diffusers_flux": Spelling("text_encoder_2.", False, *_PEFT),
        "diffusers_sd3": Spelling("text_encoder_3.", False, *_PEFT),
        "comfyui": Spelling("text_encoders.t5xxl.transformer.", False, *_PEFT),
    },
}
LANGUAGE_MODEL = {
    "peft": Spelling("base_model.model.", False, *_PEFT),
    "peft_default": Spelling("base_model.model.", False, *_DEFAULT),
    "bare": Spelling("", False, *_PEFT),
}


def spell(spelling: Spelling, modules: Mapping[str, tuple[int, ...]]) -> tuple[Tensors, dict[str, str]]:
    """(tensors, {key: module}) of an adapter for modules of these weight shapes."""
    tensors: Tensors = {}
    meant: dict[str, str] = {}
    for module, shape in modules.items():
        tensors.update(pair(spelling.keys(module), shape))
        meant.update(dict.fromkeys(spelling.keys(module), module))
    return tensors, meant


def pair(keys: list[str], shape: tuple[int, ...]) -> Tensors:
    """down, up and perhaps alpha for one weight; a convolution's up factor is 1x1."""
    rows, cols, *kernel = shape
    shapes = [(RANK, cols, *kernel), (rows, RANK, *(1 for _ in kernel)), ()]
    dtypes = ("BF16", "BF16", "F32")  # factors in half precision, as published; alpha is a number
    return {key: (dtype, form) for key, dtype, form in zip(keys, dtypes, shapes, strict=False)}


def attention_processor(modules: Mapping[str, tuple[int, ...]]) -> tuple[Tensors, dict[str, str]]:
    """diffusers before 0.20: the factors belong to the attention's processor, and ``to_out.0`` is ``to_out``."""
    tensors: Tensors = {}
    meant: dict[str, str] = {}
    for module, shape in modules.items():
        attention, _, last = module.removesuffix(".0").rpartition(".")
        if attention.endswith(("attn1", "attn2")) and last in ("to_q", "to_k", "to_v", "to_out"):
            keys = [f"unet.{attention}.processor.{last}_lora.{side}.weight" for side in ("down", "up")]
            tensors.update(pair(keys, shape))
            meant.update(dict.fromkeys(keys, module))
    return tensors, meant
