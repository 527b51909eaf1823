"""What is not finite in a weight keeps its bits; what becomes so is an overflow of exactly that job."""

import pytest
import torch
from fusion_reference import (
    BITS,
    EDGE_OF_FP16,
    NAMES,
    WEIGHTS,
    Term,
    bits,
    expected,
    job,
    random_tensor,
    random_term,
    same_bits,
)

from lora_mmap import _C

INF = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000, torch.float64: 0x7FF0000000000000}


def special(dtype):
    """Infinities and quiet and signalling NaNs with payloads, of both signs."""
    inf = INF[dtype]
    sign = -(1 << (8 * dtype.itemsize - 1))
    patterns = [inf, inf | 1, inf | (inf >> 1 & ~inf) | 5, inf | ((inf & -inf) - 1)]
    both = patterns + [sign + p for p in patterns]
    return torch.tensor(both, dtype=BITS[dtype.itemsize]).view(dtype)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shape", [(7, 19), (3, 5), (12, 32)], ids=str)
def test_bits_are_kept(isa, generator, dtype, shape):
    w = random_tensor(generator, *shape, dtype)
    values = special(dtype)
    at = torch.randperm(w.numel(), generator=generator)[: len(values)]
    w.view(-1)[at] = values
    w.view(BITS[dtype.itemsize]).view(-1)[at] = values.view(BITS[dtype.itemsize])
    terms = [random_term(generator, *shape, 4)]
    wanted, overflow = expected(w, terms)
    assert not overflow
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)
    assert torch.equal(bits(w).view(-1)[at], values.view(BITS[dtype.itemsize]))


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
def test_bits_are_kept_in_another_place_and_stride(isa, generator, dtype):
    base = special(dtype).repeat(3, 3)
    w = torch.zeros(24, 3, dtype=dtype).t()
    assert _C.fuse([job(w, [random_term(generator, 3, 24, 4)], base)], 1, isa) == []
    assert same_bits(w, base)


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
def test_overflow_names_its_jobs(isa, generator, dtype):
    """The largest finite value plus itself, in one element of some jobs."""
    weights = [random_tensor(generator, 9, 21, dtype) for _ in range(12)]
    terms, jobs, wanted = [], [], []
    hit = {2, 5, 11}
    for i, w in enumerate(weights):
        term = random_term(generator, 9, 21, 2, torch.float64)
        if i in hit:
            largest = torch.finfo(dtype).max
            w[i % 9, 20 - i] = largest
            term.up[i % 9, 0], term.down[0, 20 - i], term.scale = largest, 1.0, 1.0
        terms.append(term)
        jobs.append(job(w, [term]))
        wanted.append(expected(w, [term]))
    assert [i for i, (_, overflow) in enumerate(wanted) if overflow] == sorted(hit)
    assert _C.fuse(jobs, 3, isa) == sorted(hit)
    for i, w in enumerate(weights):
        if i not in hit:
            assert same_bits(w, wanted[i][0])


@pytest.mark.parametrize(("old", "delta", "overflow"), EDGE_OF_FP16)
def test_the_edge_of_fp16(isa, old, delta, overflow):
    w = torch.tensor([[1.0, old]], dtype=torch.float16)
    terms = [Term(torch.tensor([[0.0, 1.0]]), torch.tensor([[delta]]), 1.0)]
    assert _C.fuse([job(w, terms)], 1, isa) == ([0] if overflow else [])


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("pattern", [0x7FFFFFFF, -1, 0x7F800001, 0x7F800000])
def test_a_factor_that_is_not_finite_is_an_overflow(isa, generator, dtype, pattern):
    """Whatever the payload: none may round into a finite bf16."""
    bad = torch.tensor([pattern], dtype=torch.int32).view(torch.float32)
    for place in ("down", "up"):
        w = random_tensor(generator, 7, 33, dtype)
        term = random_term(generator, 7, 33, 3, torch.float32)
        getattr(term, place).view(torch.int32)[1, 2] = bad.view(torch.int32)
        assert _C.fuse([job(w, [term])], 1, isa) == [0]
        row_or_col = w[:, 2] if place == "down" else w[1]
        assert not torch.isfinite(row_or_col).any()


@pytest.mark.parametrize("dtype", WEIGHTS, ids=NAMES.get)
def test_no_overflow_where_the_weight_already_was_not_finite(isa, generator, dtype):
    """Also at the edge of a panel, whose padding counts for nothing."""
    for cols in (5, 16, 21):
        w = random_tensor(generator, 4, cols, dtype)
        w[1] = float("nan")
        before = bits(w)[1].clone()
        term = random_term(generator, 4, cols, 2, torch.float32)
        term.up[1] = float("inf")
        assert _C.fuse([job(w, [term])], 1, isa) == []
        assert torch.equal(bits(w)[1], before)
