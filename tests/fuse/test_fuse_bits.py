"""Every kernel gives the bits of the contract for any shape, rank, type, number of terms, jobs and threads."""

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
    random_tensor,
    random_term,
    same_bits,
)

from lora_mmap import _C

SHAPES = [
    # rows, cols, rank: around the tiles (6 rows, alone or in pairs, of 8, 16 or 32 columns) and the rank block of 256
    # (112 in fp64)
    (1, 1, 1),
    (5, 7, 3),
    (6, 16, 4),
    (7, 17, 5),
    (13, 33, 0),
    (12, 100, 127),
    (11, 31, 128),
    (17, 65, 129),
    (9, 40, 300),
    (12, 32, 1),
    (23, 64, 5),
    (25, 63, 7),
    (14, 97, 256),
    (13, 96, 257),
]


def small(weight, shape):
    """libm's fma runs element by element: keep fp64 shapes small."""
    rows, cols, rank = shape
    return (min(rows, 8), min(cols, 19), rank) if weight == torch.float64 else shape


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(isa, generator, weight, shape):
    rows, cols, rank = small(weight, shape)
    w = random_tensor(generator, rows, cols, weight)
    terms = [random_term(generator, rows, cols, rank)]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("down", FACTORS, ids=NAMES.get)
@pytest.mark.parametrize("up", FACTORS, ids=NAMES.get)
def test_factor_types(isa, generator, weight, down, up):
    w = random_tensor(generator, 7, 19, weight)
    terms = [random_term(generator, 7, 19, 6, down, up)]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_terms_are_laid_end_to_end(isa, generator, weight):
    rows, cols, _ = small(weight, (20, 50, 0))
    w = random_tensor(generator, rows, cols, weight)
    terms = [
        random_term(generator, rows, cols, rank, dtype, scale=scale)
        for rank, dtype, scale in [
            (5, torch.bfloat16, 0.1),
            (0, torch.float16, 3.0),
            (130, torch.float32, -1 / 3),
            (3, torch.float8_e4m3fn, 1e-3),
            (125, torch.float16, 0.7),
        ]
    ]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5])
def test_many_jobs_on_any_number_of_threads(isa, generator, threads):
    weights, jobs, wanted = [], [], []
    keep = []
    for i in range(40):
        rows, cols, rank = 1 + 7 * i % 230, 1 + 13 * i % 90, i % 9
        w = random_tensor(generator, rows, cols, WEIGHTS[i % 3])
        terms = [random_term(generator, rows, cols, rank)]
        wanted.append(expected(w, terms)[0])
        weights.append(w)
        keep.append(terms)
        jobs.append(job(w, terms))
    assert _C.fuse(jobs, threads, isa) == []
    assert all(same_bits(w, e) for w, e in zip(weights, wanted, strict=True))


def test_blocks_of_rows_and_columns(isa, generator):
    """Several blocks each way: A is packed once for a column of blocks, accumulators spill between ranks."""
    for rank, cols in [(110, 330), (131, 290), (256, 450), (258, 450)]:
        w = random_tensor(generator, 200, cols, torch.bfloat16)
        terms = [random_term(generator, 200, cols, rank)]
        wanted, _ = expected(w, terms)
        assert _C.fuse([job(w, terms)], 3, isa) == []
        assert same_bits(w, wanted)


@pytest.mark.skipif(len(_C.isas()) < 2, reason="one kernel")
@pytest.mark.parametrize("threads", [2, 200])
def test_kernels_agree_where_scratch_is_scarce(generator, threads):
    """At 200 threads a worker has 80 KiB, so blocks shrink; no bit depends on it."""
    for dtype in WEIGHTS:
        w = random_tensor(generator, 130, 500, dtype)
        terms = [random_term(generator, 130, 500, 300)]
        results = []
        for isa in _C.isas():
            copy = w.clone()
            assert _C.fuse([job(copy, terms)], threads, isa) == []
            results.append(copy)
        assert all(same_bits(r, results[0]) for r in results)


def test_a_rank_block_may_begin_inside_a_term(isa, generator):
    """Ranks of 640 are summed in three parts, none of which ends where a term does."""
    for dtype in (torch.float16, torch.bfloat16):
        w = random_tensor(generator, 19, 70, dtype)
        terms = [random_term(generator, 19, 70, rank) for rank in (200, 300, 140)]
        wanted, _ = expected(w, terms)
        assert _C.fuse([job(w, terms)], 1, isa) == []
        assert same_bits(w, wanted)


@pytest.mark.skipif(len(_C.isas()) < 2, reason="one kernel")
@pytest.mark.parametrize("stride", [4096, 3072 + 8])
def test_kernels_agree_on_rows_whole_pages_apart(generator, stride):
    """Prefetching differs for rows that are whole pages apart; what lies between them stays."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        whole = random_tensor(generator, 40, stride, dtype)
        terms = [random_term(generator, 40, 1100, 20)]
        results = []
        for isa in _C.isas():
            copy = whole.clone()
            assert _C.fuse([job(copy[:, :1100], terms)], 2, isa) == []
            results.append(copy)
        assert all(same_bits(r, results[0]) for r in results)


def test_product_with_the_scale_is_rounded_first(isa):
    """B * s is one fp32 product: fma(B * s, A, 0) and not B * (s * A)."""
    up, down, scale = torch.tensor([[1 / 3]]), torch.tensor([[3.0000002]]), 1.1
    w = torch.zeros(1, 1)
    terms = [Term(down, up, scale)]
    wanted, _ = expected(w, terms)
    _C.fuse([job(w, terms)], 1, isa)
    assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_no_terms_adds_zero(isa, weight):
    w = torch.tensor([[-0.0, 0.0, 1.5, -2.25]], dtype=weight)
    _C.fuse([job(w, [])], 1, isa)
    assert same_bits(w, torch.tensor([[0.0, 0.0, 1.5, -2.25]], dtype=weight))


def test_empty_calls(isa):
    assert _C.fuse([], 4, isa) == []
    for shape in [(0, 5), (5, 0), (0, 0)]:
        assert _C.fuse([(0, 0, *shape, 1, 1, 1, 1, "F16", [])], 2, isa) == []


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_base_elsewhere_stays(isa, generator, weight):
    base = random_tensor(generator, 8, 19, weight)
    before = base.clone()
    w = torch.zeros_like(base)
    terms = [random_term(generator, 8, 19, 4)]
    wanted, _ = expected(base, terms)
    for _ in range(2):  # from the pristine values each time: nothing accumulates
        assert _C.fuse([job(w, terms, base)], 2, isa) == []
        assert same_bits(w, wanted)
    assert torch.equal(bits(base), bits(before))
