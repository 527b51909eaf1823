"""The copy kernel moves what `_C.copy` moves, and nothing else."""

import pytest
import torch
from copy_cases import TYPES, check_every_pair_of_strides, numbered, rect
from emulator import ORDERS

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def check(gpu, storage, rects_of, **how):
    wanted = storage.clone()
    _C.copy(rects_of(wanted), 1)
    gpu.copy(rects_of(storage), **how)
    assert torch.equal(storage, wanted)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_pair_of_strides(gpu, dtype):
    check_every_pair_of_strides(gpu.copy, dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("count", [1, 7, 16, 255, 4096, 4097, 70003])
def test_runs_of_any_length_and_alignment(gpu, dtype, count):
    source = numbered(1, count + 8, dtype)
    for shift in (0, 1, 3, 4):
        storage = torch.zeros(1, count + 12, dtype=dtype)
        src = source[:, shift : shift + count]
        check(gpu, storage, lambda t, src=src, shift=shift: [rect(t[:, shift : shift + count], src)])
        check(gpu, storage.zero_(), lambda t, src=src: [rect(t[:, 2 : 2 + count], src)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [1, 5, 4000])
def test_an_arena_to_many_small_tensors(gpu, order, grid):
    sizes = [1 + 97 * i % 900 for i in range(300)]
    arena = numbered(1, sum(-(-n // 8) * 8 for n in sizes), torch.int16)
    out = [torch.zeros(1, n, dtype=torch.int16) for n in sizes]
    rects, at, wanted = [], 0, []
    for n, tensor in zip(sizes, out, strict=True):
        wanted.append(arena[:, at : at + n])
        rects.append(rect(tensor, wanted[-1]))
        at += -(-n // 8) * 8
    with gpu.order(order, seed=grid):
        gpu.copy(rects, grid)
    assert all(torch.equal(a, b) for a, b in zip(out, wanted, strict=True))


def test_rows_of_a_wider_tensor(gpu):
    src = numbered(40, 600, torch.int16)
    for begin, end in [(0, 600), (8, 520), (4, 524), (2, 301), (3, 302)]:
        check(gpu, torch.zeros(40, 700, dtype=torch.int16), lambda t, b=begin, e=end: [rect(t[:, b:e], src[:, b:e])])


def test_empty_and_impossible(gpu):
    gpu.copy([])
    gpu.copy([(0, 0, 0, 5, 1, 1, 1, 1, 2)])
    with pytest.raises(ArgumentError, match="3 bytes"):
        gpu.copy([(16, 32, 1, 1, 1, 1, 1, 1, 3)])
