"""A key classifier as single-file loaders have one: prefixes cut off, the ending found by a few expressions, and the
path by a list of expressions tried in order, each with a template for the module and the part of it.

Written here in that style, to stand for it; no loader's own rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "unet.", "lora_unet_", "lycoris_")
_ENDINGS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_down(?:\.\w+)?\.weight$|\.lora\.down\.weight$|\.lora_A(?:\.\w+)?(?:\.weight)?$", "down"),
        (r"\.lora_up(?:\.\w+)?\.weight$|\.lora\.up\.weight$|\.lora_B(?:\.\w+)?(?:\.weight)?$", "up"),
        (r"\.(?:lora_)?alpha$", "alpha"),
        (r"\.(lokr_w[12](?:_[ab])?|hada_w[12]_[ab])$", "other"),
        (r"\.(diff(?:_b)?|dora_scale|lora_mid\.weight)$", "other"),
    )
)
# As such lists grow: the family that a loader was written for, with its fused layers, then the next ones.
_PATHS = tuple(
    (re.compile(pattern), template)
    for pattern, template in (
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._]([qkv])$", r"\1.\2.attn.to_qkv"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]add[._]([qkv])[._]proj$", r"\1.\2.attn.add_qkv_proj"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._]out[._]0$", r"\1.\2.attn.to_out.0"),
        (r"^(transformer_blocks)[._](\d+)[._]attn[._]to[._]add[._]out$", r"\1.\2.attn.to_add_out"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mlp[._]net[._]0[._]proj$", r"\1.\2.\3_mlp.net.0.proj"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mlp[._]net[._]2$", r"\1.\2.\3_mlp.net.2"),
        (r"^(transformer_blocks)[._](\d+)[._](img|txt)_mod[._]1$", r"\1.\2.\3_mod.1"),
        (r"^(transformer_blocks)[._](\d+)[._]ff(_context)?[._]net[._](0[._]proj|2)$", r"\1.\2.mlp"),
        (r"^(transformer_blocks)[._](\d+)[._]norm1(_context)?[._]linear$", r"\1.\2.norm1.linear"),
        (r"^(single_transformer_blocks)[._](\d+)[._]attn[._]to[._]([qkv])$", r"\1.\2.attn.to_qkv"),
        (r"^(single_transformer_blocks)[._](\d+)[._]proj_(mlp|out)$", r"\1.\2.proj_\3"),
        (r"^(single_transformer_blocks)[._](\d+)[._]norm[._]linear$", r"\1.\2.norm.linear"),
        (r"^(double_blocks)[._](\d+)[._](img|txt)_attn[._](qkv|proj)$", r"\1.\2.\3_attn.\4"),
        (r"^(double_blocks)[._](\d+)[._](img|txt)_mlp[._]([02])$", r"\1.\2.\3_mlp.\4"),
        (r"^(double_blocks)[._](\d+)[._](img|txt)_mod[._]lin$", r"\1.\2.\3_mod.lin"),
        (r"^(single_blocks)[._](\d+)[._](linear[12]|modulation[._]lin)$", r"\1.\2.\3"),
        (r"^(layers|noise_refiner|context_refiner)[._](\d+)[._]attention[._]to[._]([qkv])$", r"\1.\2.attention.qkv"),
        (r"^(layers|noise_refiner|context_refiner)[._](\d+)[._]attention[._]to[._]out[._]0$", r"\1.\2.attention.out"),
        (r"^(layers|noise_refiner|context_refiner)[._](\d+)[._]feed_forward[._]w([123])$", r"\1.\2.feed_forward.w\3"),
        (r"^(layers|noise_refiner)[._](\d+)[._]adaLN_modulation[._](\d)$", r"\1.\2.adaLN_modulation.\3"),
        (r"^(blocks)[._](\d+)[._](self|cross)_attn[._]([qkvo]|k_img|v_img)$", r"\1.\2.\3_attn.\4"),
        (r"^(blocks)[._](\d+)[._]ffn[._]([02])$", r"\1.\2.ffn.\3"),
        (r"^(input|output)_blocks[._](\d+)[._](\d)[._](\w+)$", r"\1_blocks.\2.\3.\4"),
        (r"^(down|up)_blocks[._](\d+)[._](attentions|resnets)[._](\d+)[._]([\w.]+)$", r"\1_blocks.\2.\3.\4.\5"),
        (r"^lora_te(\d?)[._]text_model[._]encoder[._]layers[._](\d+)[._](\w+)$", r"te\1.layers.\2.\3"),
        (r"^(img_in|txt_in|proj_out|norm_out[._]linear|time_text_embed[._]\w+[._]\w+)$", r"\1"),
    )
)
PATHS = len(_PATHS)


class Found(NamedTuple):
    module: str
    part: str
    role: str


def classify(keys: Iterable[str]) -> dict[str, list[Found]]:
    """Groups keys: module -> what was found for it, and under "" what no expression knows."""
    groups: dict[str, list[Found]] = {}
    for key in keys:
        found = _classify(key)
        groups.setdefault(found.module, []).append(found)
    return groups


def _classify(key: str) -> Found:
    path = key
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    path, role = _role(path)
    if not role:
        return Found("", "", "")
    for pattern, template in _PATHS:
        match = pattern.match(path)
        if match:
            return Found(match.expand(template), match[match.lastindex or 0], role)
    return Found("", path, role)


def _role(path: str) -> tuple[str, str]:
    """The path without its ending, and what the ending says; no role where none fits."""
    for ending, role in _ENDINGS:
        match = ending.search(path)
        if match:
            return path[: match.start()], role
    return path, ""
