"""The ``device`` argument of loaders: what safetensors accepts, and a ``torch.device`` besides."""

from __future__ import annotations

import operator
import re
from contextlib import suppress
from typing import Any

import torch

from ..errors import LoaderArgumentError

_TYPES = frozenset({"cuda", "mps", "npu", "xpu", "xla", "mlu", "hpu", "musa"})
_MAX_INDEX = 2**64 - 1


def parse_device(device: Any) -> torch.device | str | int | None:
    """None for the CPU, otherwise what ``Tensor.to`` takes. Whether there is such a device shows when it is used.

    Raises LoaderArgumentError (a SafetensorError), or ValueError for an index that is none, as safetensors does.
    """
    if device is None or device == "cpu":
        return None
    if isinstance(device, torch.device):
        if device.type == "cpu":
            return None
        if device.type in _TYPES:
            return device
    elif isinstance(device, str):
        kind, *indices = device.split(":")
        if kind in _TYPES and len(indices) < 2:
            return _indexed(kind, _parse_index(indices[0])) if indices else kind
    else:
        with suppress(TypeError):
            index = operator.index(device)
            if 0 <= index <= _MAX_INDEX:
                return index
    raise LoaderArgumentError(f"device {device if isinstance(device, str) else repr(device)} is invalid")


def refuse_device(device: torch.device | str | int | None) -> None:
    """Raises LoaderArgumentError for anything but the CPU: numpy's arrays are nowhere else."""
    if device is None:
        return
    name = str(device)
    kind, colon, _ = name.partition(":")
    if kind == "mps":
        name = kind
    elif kind in _TYPES and not colon:
        name += ":0"
    raise LoaderArgumentError(f"Device {name} is not supported for framework numpy")


def _indexed(kind: str, index: int) -> str:
    if kind == "mps" and index:
        raise LoaderArgumentError(f"device {kind}:{index} is invalid: only mps or mps:0 is supported")
    return f"{kind}:{index}"


def _parse_index(text: str) -> int:
    if not text:
        raise ValueError("cannot parse integer from empty string")
    if not re.fullmatch(r"\+?[0-9]+", text):
        raise ValueError("invalid digit found in string")
    index = int(text)
    if index > _MAX_INDEX:
        raise ValueError("number too large to fit in target type")
    return index
