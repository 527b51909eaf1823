"""Adapters for the tiny pipelines, written by diffusers itself, and what is in them as numbers."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_components import diffusers
from tiny_pipelines import KINDS, parts_of, tiny_pipeline
from torch import nn

peft = pytest.importorskip("peft")


class Layer(NamedTuple):
    """W' = W + strength * scale * up @ down; the factors as the file has them."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


Layers = dict[str, dict[str, Layer]]  # component -> module -> layer


class Written(NamedTuple):
    """A file and what it means; ``twin`` is the same adapter in a spelling that diffusers reads, mostly ``path``."""

    path: Path
    layers: Layers
    twin: Path

    @property
    def components(self) -> list[str]:
        return list(self.layers)


@contextlib.contextmanager
def peers_at_peace() -> Iterator[None]:
    """Without what diffusers, transformers and peft warn of about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_ADDED = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
_TRAINED = {
    "sd15": [*_ATTENTION, "proj_in", "proj_out", "conv1", "conv_shortcut", "time_emb_proj", "ff.net.0.proj"],
    "sdxl": [*_ATTENTION, "proj_in", "proj_out", "conv2", "downsamplers.0.conv", "ff.net.2"],
    "sd3": [*_ATTENTION, *_ADDED, "norm1.linear", "ff_context.net.0.proj"],
    "flux": [*_ATTENTION, *_ADDED, "proj_mlp", "norm1.linear", "ff.net.2"],
    "qwen_image": [*_ATTENTION, *_ADDED, "img_mod.1", "net.0.proj"],
    "wan": [*_ATTENTION, "ffn.net.0.proj", "time_embedder.linear_1"],
    "wan_two_experts": [*_ATTENTION, "ffn.net.2"],
    "z_image": [*_ATTENTION, "w1", "w3", "cap_embedder.1"],
}
_OF_CLIP = ["q_proj", "v_proj", "out_proj", "fc1"]
_RANKS, _ALPHAS = {"to_k": 5, "to_out.0": 2, "v_proj": 4}, {"to_v": 7.0, "fc1": 1.0}
_RANK, _ALPHA = 3, 4.5


def saved_by_diffusers(
    kind: str, folder: Path, dtype: torch.dtype = torch.float32, *, metadata: bool = True, seed: int = 0
) -> Written:
    """The pipeline class's own ``save_lora_weights``: of its first denoiser and all text encoders it knows of.

    With ``metadata`` the file holds PEFT's configuration. Without, alpha is lost, and taken for the rank; the text
    encoders' keys are then in the spelling from before PEFT, as diffusers' training scripts write them.
    """
    family = KINDS[kind]
    components = (family.denoiser, *family.text_encoders)
    arguments: dict[str, object] = {}
    layers: Layers = {}
    parts = parts_of(kind, tiny_pipeline(kind))
    with peers_at_peace(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for component in components:
            model = parts[component]
            model.add_adapter(_config(_TRAINED[kind] if component == family.denoiser else _OF_CLIP))
            _in_dtype(model, dtype)
            layers[component] = _layers(model, metadata)
            factors = peft.get_peft_model_state_dict(model)
            if not metadata and component != family.denoiser:
                factors = diffusers.utils.convert_state_dict_to_diffusers(factors)
            arguments[f"{component}_lora_layers"] = factors
            if metadata:
                arguments[f"{component}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
        getattr(diffusers, family.pipeline).save_lora_weights(folder, **arguments)
    path = folder / "pytorch_lora_weights.safetensors"
    return Written(path, layers, path)


def _config(targets: list[str]) -> "peft.LoraConfig":
    return peft.LoraConfig(
        r=_RANK,
        lora_alpha=_ALPHA,
        rank_pattern={name: rank for name, rank in _RANKS.items() if name in targets},
        alpha_pattern={name: alpha for name, alpha in _ALPHAS.items() if name in targets},
        target_modules=targets,
        init_lora_weights=False,
    )


def _in_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def _layers(model: nn.Module, with_alpha: bool) -> dict[str, Layer]:
    return {
        name: Layer(
            module.lora_A["default"].weight.detach().clone(),
            module.lora_B["default"].weight.detach().clone(),
            module.scaling["default"] if with_alpha else 1.0,
        )
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def write_diffusers_spelling(path: Path, layers: Mapping[str, Mapping[str, Layer]]) -> Path:
    """The same adapter under diffusers' names, in fp32, the scales multiplied into the up factors."""
    tensors = {}
    for component, modules in layers.items():
        for module, layer in modules.items():
            tensors[f"{component}.{module}.lora_A.weight"] = layer.down.float().clone()
            tensors[f"{component}.{module}.lora_B.weight"] = (layer.up.float() * layer.scale).contiguous()
    save_file(tensors, path)
    return path


def only_keys(path: Path, start: str) -> None:
    """Leaves in the file what begins so."""
    save_file({key: value for key, value in load_file(path).items() if key.startswith(start)}, path)
