"""Some tensors of a file, read into memory that the caller owns: what the pinned slots of a device will be."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, ReadError

ALIGNMENT = 16


@pytest.fixture
def opened(tmp_path):
    path = tmp_path / "x.safetensors"
    generator = torch.Generator().manual_seed(1)
    sizes = [1, 700, 3, 0, 4096, 9, 1 << 20, 5, 2, 5 << 20]
    save_file({f"t{i}": torch.randint(0, 255, (n,), generator=generator).byte() for i, n in enumerate(sizes)}, path)
    file = _C.File(path)
    return file, file.read_header()


def content(file, header, index):
    return file.read(header.offsets()[index], header.nbytes()[index])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("max_gap", [0, 64, 1 << 30])
@pytest.mark.parametrize("wanted", [[], [2], [0, 1, 2], [9, 0, 6], [7, 7, 5], list(range(10))], ids=str)
def test_only_what_is_asked_for_lands_where_it_is_said(opened, wanted, max_gap, threads):
    file, header = opened
    spans, positions, nbytes = _C.plan_tensors(header, wanted, max_gap, ALIGNMENT)
    memory = _C.Memory(nbytes + 64)
    array = np.frombuffer(memory, dtype=np.uint8)
    array[:] = 0xA5
    before = file.bytes_read
    assert _C.read_tensors(file, header, wanted, memory.address, nbytes, max_gap, ALIGNMENT, threads) == positions
    assert file.bytes_read - before == sum(length for _, length, _ in spans)
    if max_gap == 0:
        assert file.bytes_read - before == sum(header.nbytes()[index] for index in set(wanted))
    assert (array[nbytes:] == 0xA5).all()
    for index, position in zip(wanted, positions, strict=True):
        assert bytes(array[position : position + header.nbytes()[index]]) == content(file, header, index)
    assert all(position % ALIGNMENT == 0 for _, _, position in spans)


def test_too_little_memory_is_refused_before_anything_is_read(opened):
    file, header = opened
    nbytes = _C.plan_tensors(header, [6, 4], 0, ALIGNMENT)[2]
    memory = _C.Memory(nbytes)
    before = file.bytes_read
    with pytest.raises(ArgumentError, match=rf"{file.path}: the tensors need {nbytes} bytes.* has {nbytes - 1}"):
        _C.read_tensors(file, header, [6, 4], memory.address, nbytes - 1, 0, ALIGNMENT)
    with pytest.raises(ArgumentError, match="no address"):
        _C.read_tensors(file, header, [6], 0, nbytes, 0, ALIGNMENT)
    with pytest.raises(ArgumentError, match="no tensor 10: the file has 10"):
        _C.plan_tensors(header, [10], 0, ALIGNMENT)
    with pytest.raises(ArgumentError, match="power of two"):
        _C.plan_tensors(header, [1], 0, 3)
    assert file.bytes_read == before


def test_a_failed_read_names_the_tensor(opened, tmp_path):
    file, header = opened
    begin = header.offsets()[header.index("t6")]
    with open(file.path, "r+b") as writer:
        writer.truncate(begin + 10)
    memory = _C.Memory(8 << 20)
    with pytest.raises(ReadError, match=rf"{file.path}: .* truncated after it was opened, inside tensor `t6`"):
        _C.read_tensors(file, header, list(range(10)), memory.address, memory.nbytes, 0, ALIGNMENT, 2)
