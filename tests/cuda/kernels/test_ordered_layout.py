"""Strides, maps, sections and alignment on the GPU's kernels; what a job does not name stays untouched."""

import pytest
import torch
from fusion_reference import (
    FACTORS,
    NAMES,
    WEIGHTS,
    Term,
    bits,
    job,
    job_at,
    random_tensor,
    random_term,
    same_bits,
)

from lora_mmap import _C

ROWS, COLS = 141, 156


def compare(gpu, storage, jobs_of):
    """`jobs_of(storage)` on the CPU and on the GPU: the same bytes in all of the storage."""
    wanted = storage.clone()
    assert _C.fuse(jobs_of(wanted), 2) == []
    assert gpu.fuse(jobs_of(storage)) == []
    assert same_bits(storage, wanted)


def views():
    return {
        "padded": ((ROWS, COLS + 9), lambda t: t[:, 4 : 4 + COLS]),
        "padded by groups": ((ROWS, COLS + 12), lambda t: t[:, 8 : 8 + COLS]),
        "shifted": ((ROWS, COLS + 3), lambda t: t[:, 3:]),
        "transposed": ((COLS + 3, ROWS + 2), lambda t: t[1 : 1 + COLS, 1 : 1 + ROWS].t()),
        "spread": ((2 * ROWS, 3 * COLS), lambda t: t[::2, 1::3]),
        "a section of rows": ((3 * ROWS, COLS), lambda t: t[ROWS : 2 * ROWS]),
        "channels last": ((ROWS, COLS, 4), lambda t: t[:, :, 2]),
    }


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("view", views())
def test_strided_weights_and_what_lies_between(gpu, generator, dtype, view):
    shape, take = views()[view]
    storage = random_tensor(generator, 1, torch.Size(shape).numel(), dtype).reshape(shape)
    terms = [random_term(generator, ROWS, COLS, 20)]
    compare(gpu, storage, lambda t: [job(take(t), terms)])


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
def test_base_elsewhere_and_otherwise_strided(gpu, generator, dtype):
    for _, (shape, take) in views().items():
        base = random_tensor(generator, 1, torch.Size(shape).numel(), dtype).reshape(shape)
        before = base.clone()
        terms = [random_term(generator, ROWS, COLS, 8)]
        compare(gpu, torch.zeros(ROWS, COLS, dtype=dtype), lambda t, b=base, s=terms, v=take: [job(t, s, v(b))])
        assert torch.equal(bits(base), bits(before))


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("signs", [(-1, 1), (1, -1), (-1, -1)])
def test_negative_strides(gpu, generator, dtype, signs):
    rows, cols = 18, 20
    terms = [random_term(generator, rows, cols, 3)]

    def jobs(t):
        last = (rows - 1) * cols * (signs[0] < 0) + (cols - 1) * (signs[1] < 0)
        first = t.data_ptr() + t.element_size() * last
        return [job_at(first, first, (rows, cols), (signs[0] * cols, signs[1]) * 2, dtype, terms)]

    compare(gpu, random_tensor(generator, rows, cols, dtype), jobs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=NAMES.get)
@pytest.mark.parametrize("factor", FACTORS, ids=NAMES.get)
def test_maps(gpu, generator, dtype, factor):
    down = random_tensor(generator, 20, COLS, factor)
    up = random_tensor(generator, 2 * ROWS, 20, factor)
    row_map = torch.randint(0, 2 * ROWS, (ROWS,), generator=generator, dtype=torch.int32)
    col_map = torch.randperm(COLS, generator=generator).to(torch.int32)
    w = random_tensor(generator, ROWS, COLS, dtype)
    for maps in [(row_map, None), (None, col_map), (row_map, col_map)]:
        terms = [Term(down, up if maps[0] is not None else up[:ROWS], 0.5, *maps)]
        compare(gpu, w.clone(), lambda t, s=terms: [job(t, s)])


@pytest.mark.parametrize("factor", FACTORS, ids=NAMES.get)
@pytest.mark.parametrize("shift", [1, 2, 4, 8])
def test_misaligned_factors(gpu, generator, factor, shift):
    """Bytes straight from a file stand anywhere."""
    rows, cols, rank = 9, 40, 8
    term = random_term(generator, rows, cols, rank, factor)

    def shifted(tensor):
        raw = torch.zeros(tensor.nbytes + shift, dtype=torch.uint8)
        raw[shift:] = tensor.contiguous().view(torch.uint8).flatten()
        return raw

    down, up = shifted(term.down), shifted(term.up)
    name = NAMES[factor]
    placed = (down.data_ptr() + shift, name, cols, 1, up.data_ptr() + shift, name, rank, 1, rank, 0, 0, term.scale)
    for dtype in (torch.bfloat16, torch.float64):
        w = random_tensor(generator, rows, cols, dtype)
        compare(gpu, w, lambda t: [(*job(t, [])[:9], [placed])])


@pytest.mark.parametrize("factor", [torch.float16, torch.bfloat16, torch.float32], ids=NAMES.get)
def test_factor_row_strides(gpu, generator, factor):
    for down_cols, down_from, up_cols, up_from in [(64, 11, 40, 3), (64, 8, 40, 4)]:
        down = random_tensor(generator, 20, down_cols, factor)[:, down_from : down_from + 40]
        up = random_tensor(generator, 12, up_cols, factor)[:, up_from : up_from + 20]
        w = random_tensor(generator, 12, 40, torch.float16)
        terms = [Term(down, up, 1.5)]
        compare(gpu, w, lambda t, s=terms: [job(t, s)])
