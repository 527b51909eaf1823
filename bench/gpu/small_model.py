"""A small model with every kind of weight that adapters are fused into, and adapters for it. The same on any device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..models import place

_F16, _BF16, _F32, _F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
# Rows and columns that fill tiles, that nearly do, and that do not.
_LINEARS = {
    "fc_f16": (129, 257, _F16),
    "fc_bf16": (200, 136, _BF16),
    "fc_f32": (37, 23, _F32),
    "fc_f64": (65, 31, _F64),
    "flat": (3, 1000, _BF16),
    "tall": (1000, 3, _F16),
    "point": (1, 1, _F32),
    "aligned": (640, 1280, _BF16),
    "unaligned": (513, 1030, _F16),
    "transformer_blocks.0.attn.to_qkv": (3 * 96, 80, _BF16),
}
_CONVOLUTIONS = {
    "conv": (7, 5, 3, _F16, torch.contiguous_format),
    "conv_last": (24, 16, 3, _BF16, torch.channels_last),
    "conv_point": (11, 7, 1, _F32, torch.contiguous_format),
}
_PADDED = "padded"
_TIED, _TIED_AS = "fc_bf16", "fc_bf16_again"
_CONV1D = "gpt2"
_QKV = "transformer_blocks.0.attn.to_qkv"


@dataclass(frozen=True)
class Target:
    """Where a factor pair lands: rows of a weight from ``first`` on; ``transposed`` where it is stored [in, out]."""

    weight: str
    first: int
    rows: int
    inner: tuple[int, ...]
    transposed: bool = False


def targets() -> dict[str, Target]:
    """By the module path that an adapter names."""
    found = {name: Target(name, 0, rows, (cols,)) for name, (rows, cols, _) in _LINEARS.items() if name != _QKV}
    found |= {name: Target(name, 0, rows, (cols, k, k)) for name, (rows, cols, k, *_) in _CONVOLUTIONS.items()}
    found[_PADDED] = Target(_PADDED, 0, 50, (45,))
    found[_TIED_AS] = Target(_TIED, 0, *_rows_and_inner(_TIED))
    if _conv1d() is not None:
        found[_CONV1D] = Target(_CONV1D, 0, 70, (90,), transposed=True)
    for part, name in enumerate(("to_q", "to_k", "to_v")):
        found[f"{_QKV.removesuffix('to_qkv')}{name}"] = Target(_QKV, part * 96, 96, (80,))
    return found


def build(device: torch.device) -> nn.Module:
    """The model, with the same values on every device."""
    generator = torch.Generator().manual_seed(11)
    root = nn.Module()

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    def add(name: str, module: nn.Module, weight: Tensor) -> None:
        module.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        module.register_parameter("bias", None)
        place(root, name, module)

    for name, (rows, cols, dtype) in _LINEARS.items():
        add(name, nn.Linear(cols, rows, bias=False, device="meta"), values(rows, cols).to(device, dtype))
    for name, (rows, cols, k, dtype, order) in _CONVOLUTIONS.items():
        weight = values(rows, cols, k, k).to(device, dtype).contiguous(memory_format=order)
        add(name, nn.Conv2d(cols, rows, k, bias=False, device="meta"), weight)
    wider = values(50, 64).to(device, _F32)
    add(_PADDED, nn.Linear(45, 50, bias=False, device="meta"), wider[:, :45])
    rows, cols, _ = _LINEARS[_TIED]
    tied = nn.Linear(cols, rows, bias=False, device="meta")
    tied.weight = root.get_submodule(_TIED).weight  # type: ignore[assignment]
    place(root, _TIED_AS, tied)
    if (conv1d := _conv1d()) is not None:
        add(_CONV1D, conv1d(70, 90), values(90, 70).to(device, _BF16))
    return root.requires_grad_(False)


@dataclass(frozen=True)
class Adapter:
    """Factors by module path, at strength ``strength``; ``scale`` includes alpha / rank. Exact in fp32."""

    source: Path | dict[str, Tensor]
    pairs: dict[str, tuple[Tensor, Tensor]]
    strength: float
    scale: float


def make_adapters(scratch: Path) -> list[Adapter]:
    """Three of them: all targets, some of them (and one part of the fused projection), and a high rank."""
    every = list(targets())
    some = [name for name in every if name.endswith(("to_k", "again", "conv_last", "unaligned", "padded", "fc_f64"))]
    large = [name for name in every if name in {"aligned", "unaligned", "fc_f16", "fc_bf16", "fc_f32", "conv"}]
    return [
        make_adapter(scratch / "every.safetensors", every, 5, _F16, 0.75, 1),
        make_adapter(None, some, 16, _BF16, -0.5, 2),
        make_adapter(scratch / "large.safetensors", large, 70, _BF16, 1.0, 3),
    ]


def make_adapter(
    path: Path | None, names: list[str], rank: int, dtype: torch.dtype, strength: float, seed: int
) -> Adapter:
    """In a file, or as a dictionary where there is no path. Alpha is half the rank."""
    generator = torch.Generator().manual_seed(seed)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    for name, target in targets().items():
        if name not in names:
            continue
        down = (torch.randn((rank, *target.inner), generator=generator) * 0.1).to(dtype)
        up = (torch.randn((target.rows, rank), generator=generator) * 0.1).to(dtype)
        up = up.reshape(target.rows, rank, *(1,) * (len(target.inner) - 1))
        pairs[name] = down, up
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(rank / 2)}
    if path is not None:
        save_file(tensors, path, metadata={"format": "pt"})
    return Adapter(path or tensors, pairs, strength, strength / 2)


def entries(adapters: list[Adapter]) -> list[tuple[Path | dict[str, Tensor], float]]:
    """As ``compose`` takes them."""
    return [(adapter.source, adapter.strength) for adapter in adapters]


def stored_bytes(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the whole storage of every weight, padding included, on the CPU."""
    return {
        name: torch.empty(0, dtype=torch.uint8, device=weight.device).set_(weight.untyped_storage()).cpu().clone()
        for name, weight in model.named_parameters()
    }


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Weights whose bytes are not the same."""
    return [name for name, weight in expected.items() if not torch.equal(found[name], weight)]


def _rows_and_inner(name: str) -> tuple[int, tuple[int, ...]]:
    rows, cols, _ = _LINEARS[name]
    return rows, (cols,)


def _conv1d() -> type[nn.Module] | None:
    try:
        from transformers.pytorch_utils import Conv1D
    except ImportError:
        return None
    found: type[nn.Module] = Conv1D
    return found
