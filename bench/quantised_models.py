"""A Qwen-Image transformer as Nunchaku quantises it, at any width: the tensors of its layers, and no arithmetic.

The low-rank branches have values, for these are what adapters go into; the 4-bit weights are zeros that nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import torch
from torch import Tensor, nn

from .models import place

_GROUP = 64
BASE_RANK = 32


class _Form(TypedDict):
    dtype: torch.dtype
    device: str


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


class SVDQW4A4Linear(nn.Module):
    """4-bit weights beside a branch of ``rank``: ``proj_down`` [in, rank] and ``proj_up`` [out, rank], both packed."""

    def __init__(self, in_features: int, out_features: int, device: str = "cpu") -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, BASE_RANK
        self.precision, self.torch_dtype = "int4", torch.bfloat16
        form = _Form(dtype=self.torch_dtype, device=device)
        self.qweight = _parameter(torch.zeros(out_features, in_features // 2, dtype=torch.int8, device=device))
        self.bias = _parameter(torch.zeros(out_features, **form))
        self.wscales = _parameter(torch.zeros(in_features // _GROUP, out_features, **form))
        self.smooth_factor = _parameter(torch.ones(in_features, **form))
        self.smooth_factor_orig = _parameter(torch.ones(in_features, **form))
        self.proj_down = _parameter(torch.randn(in_features, BASE_RANK, **form))
        self.proj_up = _parameter(torch.randn(out_features, BASE_RANK, **form))


class AWQW4A16Linear(nn.Module):
    """4-bit weights and nothing beside them."""

    def __init__(self, in_features: int, out_features: int, device: str = "cpu") -> None:
        super().__init__()
        self.in_features, self.out_features, self.group_size = in_features, out_features, _GROUP
        form = _Form(dtype=torch.bfloat16, device=device)
        self.qweight = _parameter(torch.zeros(out_features // 4, in_features // 2, dtype=torch.int32, device=device))
        self.bias = _parameter(torch.zeros(out_features, **form))
        self.wscales = _parameter(torch.zeros(in_features // _GROUP, out_features, **form))
        self.wzeros = _parameter(torch.zeros(in_features // _GROUP, out_features, **form))


class NunchakuQwenImageTransformer2DModel(nn.Module):
    """The blocks of one: two streams with a quantised modulation each."""

    def __init__(self, blocks: int, width: int, device: str = "cpu") -> None:
        super().__init__()
        for block in range(blocks):
            for name, (rows, cols) in _SVDQ.items():
                place(self, f"transformer_blocks.{block}.{name}", SVDQW4A4Linear(cols * width, rows * width, device))
            for side in ("img", "txt"):
                place(self, f"transformer_blocks.{block}.{side}_mod.1", AWQW4A16Linear(width, 6 * width, device))


_SVDQ = {  # rows and columns, in widths of the model
    "attn.to_qkv": (3, 1),
    "attn.add_qkv_proj": (3, 1),
    "attn.to_out.0": (1, 1),
    "attn.to_add_out": (1, 1),
    **{f"{side}_mlp.net.0.proj": (4, 1) for side in ("img", "txt")},
    **{f"{side}_mlp.net.2": (1, 4) for side in ("img", "txt")},
}
_THIRDS = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def svdq_linears(model: nn.Module) -> dict[str, SVDQW4A4Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, SVDQW4A4Linear)}


def parts(name: str) -> list[str]:
    """The Linears of diffusers' model whose rows the quantised module ``name`` has, first rows first."""
    parent, _, leaf = name.rpartition(".")
    return [f"{parent}.{part}" for part in _THIRDS[leaf]] if leaf in _THIRDS else [name]


def unfused(modules: Mapping[str, SVDQW4A4Linear]) -> dict[str, nn.Linear]:
    """diffusers' Linears in place of these, on the meta device: what adapters are trained on."""
    linears = {}
    for name, module in modules.items():
        own = parts(name)
        for part in own:
            rows = module.out_features // len(own)
            linears[part] = nn.Linear(module.in_features, rows, bias=False, device="meta", dtype=module.torch_dtype)
    return linears
