"""Strides, maps and alignment; and what a job does not name stays untouched."""

import pytest
import torch
from fusion_reference import (
    FACTORS,
    NAMES,
    WEIGHTS,
    Term,
    bits,
    expected,
    job,
    job_at,
    random_tensor,
    random_term,
    same_bits,
)

from lora_mmap import _C


def views(generator, dtype):
    """(storage, a strided 11 x 23 view of it)."""
    rows, cols = 11, 23
    for shape, view in [
        ((rows, cols + 9), lambda t: t[:, 4 : 4 + cols]),
        ((cols, rows), lambda t: t.t()),
        ((cols + 3, rows + 2), lambda t: t[1 : 1 + cols, 1 : 1 + rows].t()),
        ((2 * rows, 3 * cols), lambda t: t[::2, 1::3]),
        ((rows, cols, 4), lambda t: t[:, :, 2]),
    ]:
        flat = random_tensor(generator, 1, torch.Size(shape).numel(), dtype)
        storage = flat.reshape(shape)
        yield storage, view(storage)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("rank", [5, 140])
def test_strided_weights_and_their_padding(isa, generator, dtype, rank):
    for storage, view in views(generator, dtype):
        before = storage.clone()
        terms = [random_term(generator, *view.shape, rank)]
        wanted, _ = expected(view.contiguous(), terms)
        assert _C.fuse([job(view, terms)], 2, isa) == []
        assert same_bits(view, wanted)
        view.copy_(torch.zeros_like(view))
        rest = before.clone()
        rest.as_strided(view.shape, view.stride(), view.storage_offset()).zero_()
        assert torch.equal(bits(storage), bits(rest))


def test_base_with_other_strides(isa, generator):
    for _, base in views(generator, torch.bfloat16):
        w = torch.zeros(11, 23, dtype=torch.bfloat16)
        terms = [random_term(generator, 11, 23, 7)]
        wanted, _ = expected(base.contiguous(), terms)
        assert _C.fuse([job(w, terms, base)], 1, isa) == []
        assert same_bits(w, wanted)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
def test_negative_strides(isa, generator, dtype):
    rows, cols = 8, 19
    w = random_tensor(generator, rows, cols, dtype)
    terms = [random_term(generator, rows, cols, 3)]
    for row_sign, col_sign in [(-1, 1), (1, -1), (-1, -1)]:
        flips = [d for d, sign in enumerate((row_sign, col_sign)) if sign < 0]
        wanted = expected(w.flip(flips), terms)[0].flip(flips)
        first = w.data_ptr() + w.element_size() * ((rows - 1) * cols * (row_sign < 0) + (cols - 1) * (col_sign < 0))
        strides = (row_sign * cols, col_sign) * 2
        assert _C.fuse([job_at(first, first, (rows, cols), strides, dtype, terms)], 1, isa) == []
        assert same_bits(w, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=NAMES.get)
@pytest.mark.parametrize("factor", FACTORS, ids=NAMES.get)
def test_maps(isa, generator, dtype, factor):
    rows, cols = 8, 19
    down = random_tensor(generator, 4, 30, factor)
    up = random_tensor(generator, 25, 4, factor)
    row_map = torch.randint(0, 25, (rows,), generator=generator, dtype=torch.int32)
    col_map = torch.randperm(30, generator=generator)[:cols].to(torch.int32)
    for maps in [(row_map, None), (None, col_map), (row_map, col_map)]:
        used = Term(
            down if maps[1] is not None else down[:, :cols], up if maps[0] is not None else up[:rows], 0.5, *maps
        )
        w = random_tensor(generator, rows, cols, dtype)
        wanted, _ = expected(w, [used])
        assert _C.fuse([job(w, [used])], 1, isa) == []
        assert same_bits(w, wanted)


def test_maps_across_blocks(isa, generator):
    rows, cols = 200, 480
    down = random_tensor(generator, 70, cols, torch.float16)
    up = random_tensor(generator, rows, 70, torch.float16)
    maps = [torch.randperm(n, generator=generator).to(torch.int32) for n in (rows, cols)]
    w = random_tensor(generator, rows, cols, torch.float16)
    terms = [Term(down, up, 0.25, *maps)]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 2, isa) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("factor", [f for f in FACTORS if f.itemsize > 1], ids=NAMES.get)
def test_misaligned_factors(isa, generator, factor):
    """Bytes straight from a file stand anywhere; row strides are the file's."""
    rows, cols, rank = 9, 37, 6
    term = random_term(generator, rows, cols, rank, factor)
    w = random_tensor(generator, rows, cols, torch.bfloat16)
    wanted, _ = expected(w, [term])

    def shifted(tensor):
        raw = torch.zeros(tensor.nbytes + 1, dtype=torch.uint8)
        raw[1:] = tensor.contiguous().view(torch.uint8).flatten()
        return raw

    down, up = shifted(term.down), shifted(term.up)
    name = NAMES[factor]
    placed = (down.data_ptr() + 1, name, cols, 1, up.data_ptr() + 1, name, rank, 1, rank, 0, 0, term.scale)
    assert _C.fuse([(*job(w, [])[:9], [placed])], 1, isa) == []
    assert same_bits(w, wanted)


def test_factor_row_strides(isa, generator):
    down = random_tensor(generator, 5, 64, torch.float16)[:, 11:34]
    up = random_tensor(generator, 12, 40, torch.bfloat16)[:, 3:8]
    w = random_tensor(generator, 12, 23, torch.float16)
    terms = [Term(down, up, 1.5)]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)
