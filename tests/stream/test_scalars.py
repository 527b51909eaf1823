"""Alphas and other single numbers, read together where they touch."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_mmap import _C
from lora_mmap.errors import AdapterError, ArgumentError

REAL = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64]
REAL += [torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn]
REAL += [torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_every_real_type(dtype, tmp_path):
    values = [0.0, 1.0] if dtype == torch.bool else [0.0, 1.0, 7.0, 16.0]
    path = tmp_path / "x.safetensors"
    save_file({f"t{i}": torch.tensor([value]).to(dtype) for i, value in enumerate(values)}, path)
    with _C.File(path) as file:
        header = file.read_header()
        read = file.read_scalars(header, [header.index(f"t{i}") for i in range(len(values))])
        assert read == values
        assert file.bytes_read == path.stat().st_size


def test_only_the_asked_bytes_are_read_in_any_order_and_shape(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {
        "a.alpha": np.float32(8.5),
        "a.weight": np.zeros(5, np.float32),
        "b.alpha": np.full((1, 1, 1), -3, np.float32),
        "c.alpha": np.float32(np.inf),
    }
    entries, data = {}, b""
    for name, tensor in tensors.items():
        end = len(data) + tensor.nbytes
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), end]}
        data += tensor.tobytes()
    header_bytes = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header_bytes)) + header_bytes + data)
    with _C.File(path) as file:
        header = file.read_header()
        order = [header.index(f"{name}.alpha") for name in "cabc"]
        assert file.read_scalars(header, order) == [np.inf, 8.5, -3.0, np.inf]
        assert file.bytes_read == header.header_nbytes + 12
        assert file.read_scalars(header, []) == []
        with pytest.raises(AdapterError, match=r"`a\.weight`: expected one element, got 5"):
            file.read_scalars(header, [header.index("a.weight")])
        with pytest.raises(ArgumentError, match="no tensor 4"):
            file.read_scalars(header, [4])


@pytest.mark.parametrize(("dtype", "shape", "nbytes"), [("C64", [], 8), ("F4", [2], 1), ("F6_E2M3", [4], 3)])
def test_types_without_a_real_value(dtype, shape, nbytes, tmp_path):
    path = tmp_path / "x.safetensors"
    entry = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    path.write_bytes(struct.pack("<Q", len(entry)) + entry + bytes(nbytes))
    with _C.File(path) as file, pytest.raises(AdapterError, match=f"expected real numbers, got {dtype}"):
        file.read_scalars(file.read_header(), [0])
