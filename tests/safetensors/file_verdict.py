"""What a library says about a file, through the functions that its users call."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import lora_mmap

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
# Which of several tensors at one place comes first, and so which rule it breaks, is random in safetensors.
TENSOR_RULES = ("invalid offset", "invalid shape", "overflow", "The slice")


@dataclass(slots=True)
class Verdict:
    """The content of an accepted file, or the rule that a rejected one breaks."""

    tensors: list[tuple[str, str, tuple[int, ...]]] | None = None
    keys: list[str] | None = None
    metadata: dict[str, str] | None = None
    rule: str | None = None
    text: str = ""


def opened(package: Any, path: str, backend: str) -> Verdict:
    """From ``safe_open``. Any other exception than a SafetensorError comes through."""
    try:
        with package.safe_open(path, "np", backend=backend) as file:
            tensors = []
            for name in file.offset_keys():
                view = file.get_slice(name)
                tensors.append((name, view.get_dtype(), tuple(view.get_shape())))
            return Verdict(tensors, file.keys(), file.metadata())
    except SafetensorError as error:
        return rejected(error, "Error while deserializing header: ")


def rejected(error: SafetensorError, prefix: str) -> Verdict:
    text = str(error)
    assert text.startswith(prefix), text
    text = text[len(prefix) :]
    rule = next((rule for rule in RULES if text.startswith(rule)), None)
    assert rule is not None, text
    return Verdict(rule=rule, text=text)


def assert_same_verdict(path: str, content: bytes, ours_backend: str = "auto") -> bool:
    """Accepted by both with the same content, or rejected by both for the same reason. True for accepted."""
    theirs = opened(safetensors, path, "mmap")
    ours = opened(lora_mmap, path, ours_backend)
    if theirs.rule is not None:
        assert_same_rule(ours, theirs, content)
        return False
    assert ours.rule is None, (theirs, ours)
    assert ours.metadata == theirs.metadata, (theirs, ours)
    assert ours.keys == theirs.keys, (theirs, ours)
    assert in_canonical_order(ours.tensors) == in_canonical_order(theirs.tensors), (theirs, ours)
    return True


def in_canonical_order(tensors: list[tuple[str, str, tuple[int, ...]]]) -> list[list[tuple[Any, ...]]]:
    """Empty tensors between two others all lie at one offset: safetensors has them in random order."""
    return [sorted(group) if empty else list(group) for empty, group in groupby(tensors, lambda tensor: 0 in tensor[2])]


def assert_same_rule(ours: Verdict, theirs: Verdict, content: bytes) -> None:
    assert ours.rule is not None, (theirs, ours)
    if ours.rule == theirs.rule:
        if theirs.rule == "invalid offset for tensor" and not has_equal_ranges(content):
            assert ours.text.startswith(theirs.text.replace("\0", "\\0")), (theirs, ours)
        return
    assert all(verdict.rule.startswith(TENSOR_RULES) for verdict in (theirs, ours)), (theirs, ours)
    assert has_equal_ranges(content), (theirs, ours)


def has_equal_ranges(content: bytes) -> bool:
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    ranges = [tuple(entry[2] if isinstance(entry, list) else entry["data_offsets"]) for entry in entries]
    return len(set(ranges)) < len(ranges)


def assert_same_bytes(path: str, content: bytes, ours_backend: str) -> None:
    """``load_file`` and ``load`` give the same tensors, or both refuse them."""
    loads = (lambda: lora_mmap.torch.load_file(path, backend=ours_backend), lambda: lora_mmap.torch.load(content))
    try:
        theirs = safetensors.torch.load_file(path)
    except (SafetensorError, TypeError, RuntimeError) as error:
        # A type that torch has not, a dimension beyond 2^63 (a raw TypeError there), strides that overflow.
        for load in loads:
            with pytest.raises(SafetensorError if isinstance(error, TypeError) else type(error)):
                load()
        return
    for load in loads:
        ours = load()
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert_same_tensor(ours[name], tensor)


def assert_same_tensor(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if theirs.numel():
        bits = [tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in (ours, theirs)]
        assert bits[0] == bits[1]


def assert_same_verdict_on_bytes(content: bytes) -> None:
    """``load`` of bytes: the part of it that safetensors has in Rust, which knows all types, against all of ours."""
    prefix = "Error while deserializing: "
    try:
        theirs = {name for name, _ in safetensors.deserialize(content)}
    except SafetensorError as error:
        with pytest.raises(SafetensorError) as caught:
            lora_mmap.torch.load(content)
        return assert_same_rule(rejected(caught.value, prefix), rejected(error, prefix), content)
    try:
        ours = lora_mmap.torch.load(content).keys()
    except (SafetensorError, RuntimeError) as error:  # torch cannot hold it: see assert_same_bytes
        if prefix in str(error):
            raise
    else:
        assert ours == theirs
