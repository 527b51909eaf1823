"""Adapter keys in as many dialects as there are in the wild: real module paths, more blocks than any model has."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

_KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")
_PEFT = (".lora_A.weight", ".lora_B.weight")
_LOKR = (".lokr_w1", ".lokr_w2", ".alpha")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

# (prefix, whether the path is flattened, endings, a block's path, modules in the block)
_File = tuple[str, bool, tuple[str, ...], str, tuple[str, ...]]
_FILES: tuple[_File, ...] = (
    ("lora_unet_", True, _KOHYA, "double_blocks.{}", ("img_attn.qkv", "txt_attn.proj", "img_mlp.0", "txt_mod.lin")),
    ("lora_unet_", True, _KOHYA, "single_blocks.{}", ("linear1", "linear2", "modulation.lin")),
    ("base_model.model.", False, _PEFT, "double_blocks.{}", ("img_attn.qkv", "txt_mlp.2", "img_mod.lin")),
    ("transformer.", False, _PEFT, "transformer_blocks.{}.attn", (*_ATTENTION, "add_q_proj", "to_add_out")),
    ("transformer.", False, _PEFT, "single_transformer_blocks.{}", ("attn.to_q", "proj_mlp", "proj_out")),
    ("lora_unet_", True, _KOHYA, "transformer_blocks.{}", ("attn.to_q", "img_mlp.net.0.proj", "txt_mod.1")),
    ("", False, _KOHYA, "transformer_blocks.{}", ("attn.add_k_proj", "attn.to_out.0", "txt_mlp.net.2")),
    ("lycoris_", True, _LOKR, "transformer_blocks.{}", ("attn.to_k", "img_mod.1", "img_mlp.net.2")),
    ("diffusion_model.", False, _PEFT, "layers.{}", ("attention.to_q", "attention.to_out.0", "feed_forward.w1")),
    ("lora_unet_", True, _KOHYA, "layers.{}", ("attention.to_v", "feed_forward.w3", "adaLN_modulation.0")),
    ("lora_unet_", True, _KOHYA, "blocks.{}", ("self_attn.q", "cross_attn.k", "ffn.0", "cross_attn.v_img")),
    ("diffusion_model.", False, _PEFT, "blocks.{}", ("self_attn.o", "cross_attn.q", "ffn.2")),
    ("lora_te1_", True, _KOHYA, "text_model.encoder.layers.{}", ("self_attn.q_proj", "mlp.fc1", "mlp.fc2")),
    ("lora_unet_", True, _KOHYA, "input_blocks.{}.1.transformer_blocks.0", ("attn1.to_q", "attn2.to_k", "ff.net.2")),
    ("unet.", False, _PEFT, "up_blocks.1.attentions.{}.transformer_blocks.0", ("attn1.to_q", "ff.net.0.proj")),
)


def in_files(count: int) -> list[str]:
    """``count`` keys, all different, file after file; within a file by name, as safetensors writes them."""
    per_block = sum(len(endings) * len(modules) for _, _, endings, _, modules in _FILES)
    blocks = range(math.ceil(count / per_block))
    keys = [key for file in _FILES for key in sorted(key for block in blocks for key in _block(file, block))]
    return keys[:count]


def shuffled(keys: list[str]) -> list[str]:
    """The same keys in no order; the same one every time."""
    result = list(keys)
    random.Random(0).shuffle(result)
    return result


def _block(file: _File, block: int) -> Iterator[str]:
    prefix, flat, endings, path, modules = file
    for module in modules:
        name = f"{path.format(block)}.{module}"
        stem = prefix + (name.replace(".", "_") if flat else name)
        for ending in endings:
            yield stem + ending
