"""safetensors' element types as numpy dtypes.

numpy has no bfloat16, 8-bit or 4-bit floats. Where the ``ml_dtypes`` package is installed, its dtypes are used;
otherwise arrays have a dtype of one field that holds the raw bits and carries ml_dtypes' name, so that
``array["bfloat16"]`` is the uint16 view and arithmetic on the array itself is an error instead of nonsense. 4-bit
floats are always such an array, of bytes with two elements each: the last dimension is half of the header's.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

_OWN: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}

# (ml_dtypes' name, the bits without it)
_ML: dict[str, tuple[str, str]] = {
    "BF16": ("bfloat16", "<u2"),
    "F8_E4M3": ("float8_e4m3fn", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"),
    "F8_E8M0": ("float8_e8m0fnu", "u1"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "u1"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "u1"),
}


@cache
def numpy_dtypes() -> dict[str, np.dtype[Any]]:
    """By safetensors' name. Types without an entry cannot be held."""
    try:
        ml_dtypes: Any = import_module("ml_dtypes")
    except ImportError:
        ml_dtypes = None
    dtypes = {name: np.dtype(dtype) for name, dtype in _OWN.items()}
    for name, (theirs, bits) in _ML.items():
        own = getattr(ml_dtypes, theirs, None)
        dtypes[name] = np.dtype([(theirs, bits)]) if own is None else np.dtype(own)
    dtypes["F4"] = np.dtype([("float4_e2m1fn_x2", "u1")])
    return dtypes
