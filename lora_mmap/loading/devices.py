"""The ``device`` argument of loaders: what safetensors accepts, and a ``torch.device`` besides."""

from __future__ import annotations

import re
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
    elif isinstance(device, int):
        if 0 <= device <= _MAX_INDEX:
            return int(device)
    elif isinstance(device, str):
        kind, colon, index = device.partition(":")
        if kind in _TYPES:
            return f"{kind}:{_parse_index(index)}" if colon else kind
    raise LoaderArgumentError(f"device {device} is invalid")


def _parse_index(text: str) -> int:
    if not text:
        raise ValueError("cannot parse integer from empty string")
    if not re.fullmatch(r"\+?[0-9]+", text):
        raise ValueError("invalid digit found in string")
    index = int(text)
    if index > _MAX_INDEX:
        raise ValueError("number too large to fit in target type")
    return index
