"""Adapters that PEFT makes and saves, and the weights that it merges them into."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from .layers import layers
from .reference import Settings
from .specimens import Specimen, Written, at_random, near_itself, tensors_in

_NAME = "default"


def write(base: nn.Module, config: Any, folder: Path) -> Written:
    """An adapter on a copy of ``base`` that looks trained, saved by PEFT with its configuration."""
    generator = torch.Generator().manual_seed(5)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PEFT about PEFT: lora_bias has "an invalid shape"
        model: Any = peft.get_peft_model(copy.deepcopy(base), config)
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                near_itself(parameter, generator)
            elif parameter.requires_grad:
                at_random(parameter, generator)
        model.save_pretrained(folder)
    tuned = dict(_tuner_layers(model))
    return Written(
        base,
        folder,
        tensors_in(folder / "adapter_model.safetensors"),
        {name: f"base_model.model.{name}" for name in tuned},
        lambda fresh, strength: merged(fresh, folder, strength),
        {name: _settings(found, config) for name, found in tuned.items()},
    )


def merged(model: nn.Module, folder: Path, strength: float) -> Mapping[str, Tensor]:
    """PEFT's own: loaded onto ``model`` and merged. Scaled through ``scaling``, since ``scale_layer`` of 0.21 leaves
    embeddings as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(model, folder)
        for _, found in _tuner_layers(loaded):
            found.scaling[_NAME] *= strength
        whole: nn.Module = loaded.merge_and_unload()
    return whole.state_dict()


def _tuner_layers(model: Any) -> list[tuple[str, Any]]:
    named = model.base_model.model.named_modules()
    return [(name, found) for name, found in named if isinstance(found, BaseTunerLayer)]


def _settings(found: Any, config: Any) -> Settings:
    """What PEFT resolved from its configuration and patterns for this layer."""
    alphas = found.lora_alpha if hasattr(found, "lora_alpha") else found.alpha
    return Settings(float(alphas[_NAME]), int(found.r[_NAME]), bool(getattr(config, "use_rslora", False)))


def _specimen(algorithm: str, tensors: str, configured: Callable[[], Any], **fields: Any) -> Specimen:
    base = fields.pop("base", layers)
    return Specimen(algorithm, "PEFT", tensors, lambda folder: write(base(), configured(), folder), **fields)


def _lora(*targets: str, **options: Any) -> Callable[[], Any]:
    def configured() -> Any:
        return peft.LoraConfig(r=4, lora_alpha=3, target_modules=list(targets), init_lora_weights=False, **options)

    return configured


def _loha(*targets: str, **options: Any) -> Callable[[], Any]:
    return lambda: peft.LoHaConfig(r=3, alpha=2, target_modules=list(targets), init_weights=False, **options)


def _lokr(*targets: str, r: int = 2, **options: Any) -> Callable[[], Any]:
    return lambda: peft.LoKrConfig(r=r, alpha=3, target_modules=list(targets), init_weights=False, **options)


def _gpt2() -> nn.Module:
    """transformers' Conv1D keeps its weights as [in, out]."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=24, n_layer=1, n_head=2, n_positions=8, vocab_size=30, bos_token_id=0, eos_token_id=1
    )
    model: nn.Module = transformers.GPT2Model(config)
    return model.eval()


_PAIR = "`lora_A`, `lora_B`"
_CONVOLUTIONS = ("line", "image", "point", "volume")
_PATTERNS = {"rank_pattern": {"inner": 6, "image": 2}, "alpha_pattern": {"inner": 9, "point": 1}}

SPECIMENS = (
    _specimen("LoRA, Linear", _PAIR, _lora("inner")),
    _specimen("LoRA, Conv1d, Conv2d, Conv3d", _PAIR, _lora(*_CONVOLUTIONS)),
    _specimen("LoRA, Embedding", "`lora_embedding_A`, `lora_embedding_B`", _lora("table")),
    _specimen("LoRA, transformers' Conv1D", _PAIR, _lora("c_attn", "c_fc", fan_in_fan_out=True), base=_gpt2),
    _specimen("LoRA, ranks and alphas by pattern", _PAIR, _lora("inner", "image", "point", **_PATTERNS)),
    _specimen("rsLoRA", _PAIR, _lora("inner", "image", use_rslora=True)),
    _specimen("LoRA with biases", _PAIR + ", `lora_B.bias`", _lora("inner", lora_bias=True)),
    _specimen("DoRA, Linear", _PAIR + ", `lora_magnitude_vector`", _lora("inner", use_dora=True)),
    _specimen("DoRA, convolutions", _PAIR + ", `lora_magnitude_vector`", _lora(*_CONVOLUTIONS, use_dora=True)),
    _specimen(
        "DoRA, Embedding",
        "`lora_embedding_A`, `lora_embedding_B`, `lora_magnitude_vector`",
        _lora("table", use_dora=True),
    ),
    _specimen(
        "DoRA, transformers' Conv1D",
        _PAIR + ", `lora_magnitude_vector`",
        _lora("c_attn", "c_fc", use_dora=True, fan_in_fan_out=True),
        base=_gpt2,
    ),
    _specimen("LoHa", "`hada_w1_a`, `_b`, `hada_w2_a`, `_b`", _loha("inner", "image", "point", "line")),
    _specimen(
        "LoHa in Tucker form",
        "`hada_w1_a`, `_b`, `hada_w2_a`, `_b`, `hada_t1`, `_t2`",
        _loha("image", "line", use_effective_conv2d=True),
    ),
    _specimen("LoKr", "`lokr_w1`, `lokr_w2_a`, `_b`", _lokr("inner", "image", "line", "point")),
    _specimen("LoKr, both factored", "`lokr_w1_a`, `_b`, `lokr_w2_a`, `_b`", _lokr("inner", decompose_both=True)),
    _specimen("LoKr, both whole", "`lokr_w1`, `lokr_w2`", _lokr("inner", "image", r=8)),
    _specimen(
        "LoKr in Tucker form",
        "`lokr_w1`, `lokr_w2_a`, `_b`, `lokr_t2`",
        _lokr("image", "line", use_effective_conv2d=True),
    ),
)
