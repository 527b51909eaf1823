"""On the GPU's kernels too: what is not finite in a weight keeps its bits, what becomes so is an overflow."""

import pytest
import torch
from fusion_reference import BITS, EDGE_OF_FP16, NAMES, WEIGHTS, bits, job, random_tensor, random_term, same_bits

from lora_mmap import _C

EXPONENT = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000, torch.float64: 0x7FF << 52}


def special(dtype):
    """Infinities and quiet and signalling NaNs with payloads, of both signs."""
    inf = EXPONENT[dtype]
    sign = -(1 << (8 * dtype.itemsize - 1))
    patterns = [inf, inf | 1, inf | (inf >> 1 & ~inf) | 5, inf | ((inf & -inf) - 1)]
    return torch.tensor(patterns + [sign + p for p in patterns], dtype=BITS[dtype.itemsize])


# By groups, by elements, and beyond one tile.
SHAPES = [(12, 32), (7, 19), (130, 260)]


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_are_kept(gpu, generator, dtype, shape):
    w = random_tensor(generator, *shape, dtype)
    values = special(dtype)
    at = torch.randperm(w.numel(), generator=generator)[: len(values)]
    bits(w).view(-1)[at] = values
    terms = [random_term(generator, *shape, 8)]
    wanted = w.clone()
    assert _C.fuse([job(wanted, terms)], 1, "scalar") == []
    assert gpu.fuse([job(w, terms)]) == []
    assert same_bits(w, wanted)
    assert torch.equal(bits(w).view(-1)[at], values)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_overflow_names_its_jobs(gpu, generator, dtype, shape):
    """The largest finite value plus itself, in one element of some jobs."""
    rows, cols = shape
    hit = {1, 4, 5}
    weights, keep, jobs = [], [], []
    for i in range(6):
        w = random_tensor(generator, rows, cols, dtype)
        term = random_term(generator, rows, cols, 4, torch.float64 if dtype == torch.float64 else torch.float32)
        if i in hit:
            largest = torch.finfo(dtype).max
            w[rows - 1 - i, cols - 1] = largest
            term.up[rows - 1 - i], term.down[:, cols - 1], term.scale = largest / 4, 1.0, 1.0
        weights.append(w)
        keep.append(term)
        jobs.append(job(w, [term]))
    assert gpu.fuse(jobs) == sorted(hit)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("pattern", [0x7FFFFFFF, -1, 0x7F800001, 0x7F800000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_factor_that_is_not_finite_is_an_overflow(gpu, generator, dtype, pattern, shape):
    """Whatever the payload: none may round into a finite bf16."""
    for place in ("down", "up"):
        w = random_tensor(generator, *shape, dtype)
        before = w.clone()
        term = random_term(generator, *shape, 4, torch.float32)
        getattr(term, place).view(torch.int32)[1, 2] = pattern
        clean = random_tensor(generator, *shape, dtype)
        assert gpu.fuse([job(clean, []), job(w, [term])]) == [1]
        row_or_col = w[:, 2] if place == "down" else w[1]
        assert not torch.isfinite(row_or_col).any()
        rest = torch.ones(shape, dtype=torch.bool)
        (rest[:, 2] if place == "down" else rest[1]).fill_(False)
        assert torch.isfinite(w[rest]).all()
        assert not same_bits(w, before)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("cols", [5, 16, 20, 132])
def test_no_overflow_where_the_weight_already_was_not_finite(gpu, generator, dtype, cols):
    """Also at the edge of a tile, beside elements that there are not."""
    w = random_tensor(generator, 4, cols, dtype)
    w[1] = float("nan")
    before = bits(w)[1].clone()
    term = random_term(generator, 4, cols, 4, torch.float32)
    term.up[1] = float("inf")
    assert gpu.fuse([job(w, [term])]) == []
    assert torch.equal(bits(w)[1], before)


def test_a_scale_beyond_fp32_shows_nowhere_else(gpu, generator):
    """inf * 0 in the rows that a tile has not: no flag of the job's own rows."""
    w = torch.full((5, 12), float("inf"))
    term = random_term(generator, 5, 12, 4, torch.float32)
    term.scale = 1e300
    before = w.clone()
    assert gpu.fuse([job(w, [term])]) == []
    assert same_bits(w, before)


@pytest.mark.parametrize(("old", "delta", "overflow"), EDGE_OF_FP16)
def test_the_edge_of_fp16(gpu, old, delta, overflow):
    for cols in (2, 4):
        w = torch.ones(1, cols, dtype=torch.float16)
        w[0, 1] = old
        down, up = torch.zeros(4, cols), torch.full((1, 4), delta)
        down[0, 1] = 1.0
        row = (down.data_ptr(), "F32", cols, 1, up.data_ptr(), "F32", 4, 1, 4, 0, 0, 1.0)
        assert gpu.fuse([(*job(w, [])[:9], [row])]) == ([0] if overflow else [])
