"""Tensors that a loader brings to the device: those of the file, byte for byte, whatever their dtype and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import lora_mmap

from .check import Check, Setting

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int16, torch.uint8)
_LARGE_ELEMENTS = 40 << 20  # bf16: more than the staging ring holds
_SLICES: tuple[Any, ...] = (
    slice(2, 5),
    (slice(None), slice(1, 7)),
    (slice(3, 30), slice(0, 40)),
    (..., slice(5, 6)),
)


def _load_file(setting: Setting) -> str:
    path, expected = _write(setting)
    found = lora_mmap.torch.load_file(path, device=str(setting.device))
    if list(found) != list(expected):
        raise AssertionError("other names, or another order, than in the file")
    for name, tensor in found.items():
        if tensor.device != setting.device:
            raise AssertionError(f"{name} is on {tensor.device}")
        _require_same(name, tensor, expected[name])
    return f"{len(found)} tensors, {path.stat().st_size >> 20} MiB: every byte is the file's"


def _safe_open(setting: Setting) -> str:
    path, expected = _write(setting)
    count = 0
    with lora_mmap.safe_open(path, "pt", device=str(setting.device)) as file:
        for name in ("small.0", "small.17", "scalar", "empty", "large"):
            _require_same(name, file.get_tensor(name), expected[name])
        for name in ("matrix.torch.float16", "matrix.torch.float64", "matrix.torch.uint8"):
            for index in _SLICES:
                found = file.get_slice(name)[index]
                if found.device != setting.device:
                    raise AssertionError(f"{name}{index} is on {found.device}")
                _require_same(f"{name}{index}", found, expected[name][index])
                count += 1
    return f"get_tensor, and {count} slices: every byte is the file's"


def _write(setting: Setting) -> tuple[Path, dict[str, Tensor]]:
    """Odd sizes, so that nothing is aligned to anything."""
    path = setting.scratch / "tensors.safetensors"
    generator = torch.Generator().manual_seed(5)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 50

    tensors = {f"matrix.{dtype}": values(37, 41).abs().to(dtype) for dtype in _DTYPES}
    tensors |= {f"small.{i}": values(1 + i % 7, 1 + i % 11).to(torch.bfloat16) for i in range(300)}
    tensors |= {"bool": values(13) > 0, "scalar": torch.tensor(2.5), "empty": torch.empty(0, 5)}
    elements = 1 << 20 if setting.quick else _LARGE_ELEMENTS
    tensors["large"] = torch.arange(elements, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    safetensors.torch.save_file(tensors, path)
    return path, safetensors.torch.load_file(path)


def _require_same(name: str, found: Tensor, expected: Tensor) -> None:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        raise AssertionError(
            f"{name} is {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
        )
    if not torch.equal(_bits(found), _bits(expected)):
        raise AssertionError(f"{name} has other bytes than in the file")


def _bits(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8)


CHECKS = (
    Check("load_file", _load_file),
    Check("safe_open and slices", _safe_open),
)
