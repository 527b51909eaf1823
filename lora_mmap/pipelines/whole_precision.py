"""Adapters held as fp32 factors in memory, as OneDiffX did without its memory work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from ..adapter import Adapter
from ..adapter_sources import AdapterSource, locate, open_adapter
from ..tensor_source import FileTensors, MemoryTensors


def open_in_fp32(source: AdapterSource) -> Adapter:
    """As :func:`.open_adapter`, with every tensor read and every floating-point one converted to float32, exactly."""
    if isinstance(source, Mapping):
        return open_adapter({name: _in_fp32(tensor) for name, tensor in source.items()})
    path = locate(source)
    if path.suffix.lower() != ".safetensors":
        opened = open_adapter(path)
        assert isinstance(opened.source, MemoryTensors)
        tensors = dict(zip(opened.source.names, opened.source.tensors, strict=True))
        converted = {name: _in_fp32(tensor) for name, tensor in tensors.items()}
        held = MemoryTensors(converted, str(path), opened.source.format, opened.source.bytes_read)
        return Adapter(held, str(path), path)
    on_disk = FileTensors(os.fspath(path))
    try:
        converted = {name: _in_fp32(on_disk.tensor(index)) for index, name in enumerate(on_disk.names)}
        held = MemoryTensors(converted, str(path), on_disk.format, on_disk.file.bytes_read)
    finally:
        on_disk.close()
    held.metadata = on_disk.metadata
    return Adapter(held, str(path), path)


def _in_fp32(value: Any) -> Any:
    is_short = isinstance(value, torch.Tensor) and value.is_floating_point() and value.itemsize < 4
    return value.to(torch.float32) if is_short else value
