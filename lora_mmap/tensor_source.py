"""Where an adapter's tensors lie: in an open safetensors file, or in memory we own. Same questions, same answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from . import _C
from .errors import AdapterError
from .header_lists import HeaderLists
from .loading.torch_dtypes import TORCH_DTYPES

# What an adapter may hold: complex numbers and packed 4-bit floats are neither factors nor scalars of one.
_TORCH_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items() if name not in ("C64", "F4")}

# What base/dtype.h can turn into fp32: the element types a factor may have.
FACTOR_DTYPES = frozenset({"F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


def dtype_name(dtype: torch.dtype) -> str | None:
    """safetensors' name of a torch dtype, or None where it has none here."""
    return _TORCH_NAMES.get(dtype)


class FileTensors(HeaderLists):
    """An open safetensors file: the header is read and parsed once, tensors are read when somebody wants them."""

    format = "safetensors"

    def __init__(self, path: str) -> None:
        self.file = _C.File(path)
        try:
            self.header = self.file.read_header()
        except BaseException:
            self.file.close()
            raise
        self.metadata = self.header.metadata

    def __len__(self) -> int:
        return len(self.header)

    @property
    def bytes_read(self) -> int:
        """From the file, so far."""
        return self.file.bytes_read

    def classify(self, grammar: _C.Grammar) -> _C.Classification:
        return grammar.classify(self.header)

    def scalars(self, indices: list[int]) -> list[float]:
        values = self.file.read_scalars(self.header, indices)
        self.file.check_unchanged(self.header)
        return values

    def tensor(self, index: int) -> torch.Tensor:
        dtype = TORCH_DTYPES.get(self.dtypes[index])
        if dtype not in _TORCH_NAMES:
            raise AdapterError(
                f"[Adapter.tensor] {self.file.path}: tensor '{self.names[index]}' has dtype {self.dtypes[index]}, "
                f"expected one of {', '.join(sorted(_TORCH_NAMES.values()))}"
            )
        result = torch.empty(self.shapes[index], dtype=dtype, device="cpu")
        _C.read_ranges([(self.file, self.header, self.offsets[index], self.nbytes[index], result.data_ptr())])
        self.file.check_unchanged(self.header)
        return result

    def close(self) -> None:
        self.file.close()


class MemoryTensors:
    """Tensors that somebody handed over (a dict, an unpickled file). Always copied, at their own dtype, to the CPU."""

    metadata: dict[str, str] | None = None

    def __init__(self, tensors: Mapping[str, Any], where: str, format: str, bytes_read: int = 0) -> None:
        self.format = format
        self.where = where
        self.bytes_read = bytes_read  # from a file that they were in
        self.names = list(tensors)
        self._tensors = [_own_copy(name, value, where) for name, value in tensors.items()]
        self.dtypes = [_TORCH_NAMES[tensor.dtype] for tensor in self._tensors]
        self.shapes = [tuple(tensor.shape) for tensor in self._tensors]
        self.nbytes = [tensor.nbytes for tensor in self._tensors]
        self.addresses = [tensor.data_ptr() for tensor in self._tensors]

    def __len__(self) -> int:
        return len(self.names)

    def classify(self, grammar: _C.Grammar) -> _C.Classification:
        return grammar.classify(self.names, self.dtypes, self.shapes)

    def scalars(self, indices: list[int]) -> list[float]:
        for index in indices:
            if self._tensors[index].numel() != 1:
                raise AdapterError(
                    f"[open_adapter] {self.where}: tensor '{self.names[index]}': expected one element, "
                    f"got {list(self.shapes[index])}"
                )
        return [float(self._tensors[index].item()) for index in indices]

    def tensor(self, index: int) -> torch.Tensor:
        return self._tensors[index].clone()

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of them, good for as long as somebody holds the list."""
        return self._tensors

    def close(self) -> None:
        self._tensors = []


def _is_unicode(text: str) -> bool:
    """False for a lone surrogate: Python's own trick for undecodable bytes, which no file can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _own_copy(name: object, value: object, where: str) -> torch.Tensor:
    if not isinstance(name, str):
        raise AdapterError(f"[open_adapter] {where}: key {name!r} is a {type(name).__name__}, expected a str")
    if not _is_unicode(name):
        raise AdapterError(f"[open_adapter] {where}: key {name!r} has half a surrogate pair, expected valid Unicode")
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, (int, float)):
        value = torch.tensor(float(value))
    if not isinstance(value, torch.Tensor):
        raise AdapterError(
            f"[open_adapter] {where}: '{name}' is a {type(value).__name__}, expected a tensor; "
            "an adapter is a flat dict of tensors"
        )
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        kind = "meta" if value.is_meta else "quantized" if value.is_quantized else str(value.layout)
        raise AdapterError(f"[open_adapter] {where}: tensor '{name}' is {kind}, expected dense data")
    if value.dtype not in _TORCH_NAMES:
        raise AdapterError(
            f"[open_adapter] {where}: tensor '{name}' has dtype {value.dtype}, expected one of "
            f"{', '.join(str(dtype) for dtype in _TORCH_NAMES)}"
        )
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
