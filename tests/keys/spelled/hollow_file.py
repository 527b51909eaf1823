"""Adapter files with names and shapes of any size and next to no bytes: factors are holes in the file."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

NBYTES = {"U8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "F64": 8, "I64": 8}

_SCALAR = {
    "F32": lambda value: struct.pack("<f", value),
    "F16": lambda value: struct.pack("<e", value),
    "BF16": lambda value: struct.pack("<f", value)[2:],
}


def write(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
    alpha: float = 4.0,
) -> Path:
    """A safetensors file of {key: (dtype, shape)}: zeros, but floats of one element hold ``alpha``."""
    scalars = [key for key, (dtype, shape) in tensors.items() if dtype in _SCALAR and math.prod(shape) == 1]
    first = set(scalars)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in [*scalars, *(key for key in tensors if key not in first)]:
        dtype, shape = tensors[key]
        begin, end = end, end + NBYTES[dtype] * math.prod(shape)
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(_SCALAR[tensors[key][0]](alpha) for key in scalars))
        file.truncate(8 + len(text) + end)
    return path
