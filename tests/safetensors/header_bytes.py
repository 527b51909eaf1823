"""Builds the bytes of small safetensors files, good and bad."""

from __future__ import annotations

import json
import struct
from typing import Any

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


def file_of(header: bytes | str | dict[str, Any], data: bytes = b"") -> bytes:
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor_file(
    dtype: str = '"F32"', shape: str = "[1]", offsets: str = "[0,4]", extra: str = "", data: bytes = b"1234"
) -> bytes:
    """A file with the one tensor `a`; the arguments are JSON text."""
    return file_of(f'{{"a":{{{extra}"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}', data)
