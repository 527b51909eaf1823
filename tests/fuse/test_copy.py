import pytest
import torch
from copy_cases import TYPES, check_every_pair_of_strides, numbered, rect

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_pair_of_strides(dtype, threads):
    check_every_pair_of_strides(lambda rects: _C.copy(rects, threads), dtype)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_pieces(threads):
    """More than 1 MiB: contiguous, by whole rows, within rows, and transposed."""
    generator = torch.Generator().manual_seed(3)
    big = torch.randint(-(2**31), 2**31 - 1, (700, 1000), generator=generator, dtype=torch.int32)
    wide = torch.randint(-(2**31), 2**31 - 1, (2, 600_000), generator=generator, dtype=torch.int32)
    for src, dst in [
        (big, torch.zeros_like(big)),
        (big[:, 3:900], torch.zeros(700, 897, dtype=torch.int32)),
        (wide[:, 1:], torch.zeros(2, 599_999, dtype=torch.int32)),
        (big, torch.zeros(1000, 700, dtype=torch.int32).t()),
        (big.t(), torch.zeros(700, 1000, dtype=torch.int32).t()),
    ]:
        _C.copy([rect(dst, src)], threads)
        assert torch.equal(dst, src)


def test_only_the_rectangles_change():
    dst = torch.full((9, 9), 7, dtype=torch.int16)
    src = numbered(9, 9, torch.int16)
    _C.copy([rect(dst[1:3, 2:4], src[1:3, 2:4]), rect(dst[5:9, 0:9:4], src[5:9, 0:9:4])], 2)
    wanted = torch.full((9, 9), 7, dtype=torch.int16)
    wanted[1:3, 2:4] = src[1:3, 2:4]
    wanted[5:9, 0:9:4] = src[5:9, 0:9:4]
    assert torch.equal(dst, wanted)


def test_negative_strides():
    src, dst = numbered(4, 6, torch.int32), torch.zeros(4, 6, dtype=torch.int32)
    last = src.data_ptr() + 4 * 23
    _C.copy([(dst.data_ptr(), last, 4, 6, 6, 1, -6, -1, 4)], 1)
    assert torch.equal(dst, src.flip(0, 1))


def test_empty_and_nonsense():
    _C.copy([], 1)
    _C.copy([(0, 0, 0, 5, 1, 1, 1, 1, 2)], 2)
    a = torch.zeros(2, 2)
    for bad in [
        (0, a.data_ptr(), 1, 1, 1, 1, 1, 1, 4),
        (a.data_ptr(), 0, 1, 1, 1, 1, 1, 1, 4),
        (a.data_ptr(), a.data_ptr(), -1, 1, 1, 1, 1, 1, 4),
        (a.data_ptr(), a.data_ptr(), 1, 1, 1, 1, 1, 1, 3),
        (a.data_ptr(),),
    ]:
        with pytest.raises(ArgumentError, match=r"\[copy\]"):
            _C.copy([bad], 1)
    with pytest.raises(ArgumentError, match="threads"):
        _C.copy([], 0)
