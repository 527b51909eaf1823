"""Builds the bytes of small safetensors files, good and bad, and asks both libraries about them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError

from lora_mmap import _C

PREFIX = "Error while deserializing header: "
RULES = (
    "header too small",
    "header too large",
    "invalid header length",
    "invalid UTF-8 in header",
    "invalid JSON in header",
    "invalid offset for tensor",
    "invalid shape, data type, or offset for tensor",
    "incomplete metadata, file not fully covered",
    "overflow computing buffer size from shape and/or element type",
    "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, this is invalid.",
)


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


@dataclass
class Verdict:
    """What a library says about a file: its content when accepted, the rule it breaks when rejected."""

    tensors: list[tuple[str, str, tuple[int, ...]]] | None = None
    metadata: dict[str, str] | None = None
    rule: str | None = None
    text: str = ""

    @property
    def accepted(self) -> bool:
        return self.rule is None


def _rejected(error: Exception) -> Verdict:
    text = str(error)
    assert text.startswith(PREFIX), text
    rule = next((rule for rule in RULES if text[len(PREFIX) :].startswith(rule)), None)
    assert rule is not None, text
    return Verdict(rule=rule, text=text)


def theirs(path: Path) -> Verdict:
    try:
        with safetensors.safe_open(path, "np") as file:
            tensors = []
            for name in file.offset_keys():
                view = file.get_slice(name)
                tensors.append((name, view.get_dtype(), tuple(view.get_shape())))
            return Verdict(tensors=tensors, metadata=file.metadata())
    except SafetensorError as error:
        return _rejected(error)


def ours(path: Path) -> Verdict:
    try:
        with _C.File(path) as file:
            header = file.read_header()
    except SafetensorError as error:
        return _rejected(error)
    tensors = list(zip(header.names(), header.dtypes(), header.shapes(), strict=True))
    return Verdict(tensors=tensors, metadata=header.metadata)
