"""safetensors' element types as torch dtypes, and how each travels into torch without a copy."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.dlpack import from_dlpack

from .. import _C

_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",  # two elements in a byte: torch's last dimension is half of the header's
}

# Those that the installed torch has.
TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, attribute) for name, attribute in _NAMES.items() if hasattr(torch, attribute)
}

_SAME_WIDTH = {1: "U8", 2: "I16", 4: "I32", 8: "I64"}  # every torch takes these through DLPack


@cache
def tensor_maker() -> _C.TensorMaker:
    """Makes zero-copy tensors. Types that this torch does not take through DLPack travel as integers of their width."""
    routes: dict[str, tuple[str, torch.dtype | None]] = {}
    for name, dtype in TORCH_DTYPES.items():
        routes[name] = (name, None) if _takes(name, dtype) else (_SAME_WIDTH[dtype.itemsize], dtype)
    return _C.TensorMaker(from_dlpack, routes)


def _takes(name: str, dtype: torch.dtype) -> bool:
    sample = _C.dlpack_sample(name)
    if sample is None:
        return False
    try:
        return bool(from_dlpack(sample).dtype == dtype)
    except (RuntimeError, BufferError):
        return False
