"""Every kernel gives the bits of the contract for terms of every kind."""

import pytest
import torch
from fusion_reference import FACTORS, NAMES, WEIGHTS, expected, job, random_tensor, random_term, same_bits
from term_kinds import AnyTerm, Choice, Matrix, folded, products, whole_matrices

from lora_mmap import _C


def shape_for(weight):
    """libm's fma runs element by element: keep fp64 shapes small."""
    return (7, 19) if weight == torch.float64 else (15, 83)


def assert_bits(w, terms, isa, threads=1, **options):
    wanted, overflow = expected(w, terms)
    assert not overflow
    assert _C.fuse([job(w, terms)], threads, isa, **options) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_whole_matrices(isa, generator, weight):
    rows, cols = shape_for(weight)
    for _, matrix in whole_matrices(generator, rows, cols, torch.float16):
        assert_bits(random_tensor(generator, rows, cols, weight), [AnyTerm(matrix, 0.37)], isa)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("rank", [0, 5, 70, 131])
def test_products(isa, generator, weight, rank):
    """Strided factors alone, which the packed kernel takes as it takes others, and times something, which it multiplies
    out."""
    rows, cols = shape_for(weight)
    rank = min(rank, 66) if weight == torch.float64 else rank
    for _, matrix in products(generator, rows, cols, rank, torch.float16, torch.bfloat16):
        w = random_tensor(generator, rows, cols, weight)
        assert_bits(w, [AnyTerm(matrix, 0.37)], isa)
        assert_bits(w, [AnyTerm(matrix, 0.1, Matrix(random_tensor(generator, rows, cols, torch.float16)))], isa)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("dtype", FACTORS, ids=NAMES.get)
def test_factor_types(isa, generator, weight, dtype):
    for _, matrix in whole_matrices(generator, 7, 19, dtype):
        product = next(products(generator, 7, 19, 3, dtype))[1]
        terms = [AnyTerm(matrix, 0.5), AnyTerm(matrix, 0.5, product), AnyTerm(matrix, 0.1, "base")]
        assert_bits(random_tensor(generator, 7, 19, weight), terms, isa)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_kinds_in_any_order(isa, generator, weight):
    choice = Choice(generator)
    rows, cols = shape_for(weight)
    for _ in range(4 if weight == torch.float64 else 12):
        terms = [choice.term(rows, cols, weight) for _ in range(1 + choice.below(4))]
        terms.insert(choice.below(len(terms) + 1), random_term(generator, rows, cols, 9))
        assert_bits(random_tensor(generator, rows, cols, weight), terms, isa)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("seed", range(8))
def test_awkward_shapes(isa, weight, seed):
    choice = Choice(torch.Generator().manual_seed(seed))
    for _ in range(4):
        rows, cols = (choice.of([1, 2, 5, 6, 7, 11, 13]) for _ in range(2))
        if weight != torch.float64:
            rows, cols = choice.of([rows, 3 * rows]), choice.of([cols, 17 * cols])
        base = random_tensor(choice.generator, rows, cols, weight)
        terms = [choice.term(rows, cols, weight) for _ in range(1 + choice.below(3))]
        wanted, _ = expected(base, terms)
        for view in (
            torch.zeros(rows, cols + 3, dtype=weight)[:, :cols],
            torch.zeros(cols, rows, dtype=weight).t(),
            torch.zeros(2 * rows, 3 * cols, dtype=weight)[::2, ::3],
        ):
            assert _C.fuse([job(view, terms, base)], 2, isa) == []
            assert same_bits(view, wanted)
        assert _C.fuse([job(base, terms)], 1, isa) == []
        assert same_bits(base, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_tile_sizes_and_threads(isa, seed):
    """Scratch from less than the smallest block to more than the largest."""
    choice = Choice(torch.Generator().manual_seed(seed))
    weight, (rows, cols) = WEIGHTS[seed % 3], (110, 290)
    base = random_tensor(choice.generator, rows, cols, weight)
    terms = [choice.term(rows, cols, weight) for _ in range(3)]
    wanted, _ = expected(base, terms)
    for threads, scratch_nbytes in [(1, 0), (2, 150_000), (3, 600_000), (5, 1 << 20), (1, 1 << 24), (200, 1 << 24)]:
        w = torch.zeros_like(base)
        assert _C.fuse([job(w, terms, base)], threads, isa, scratch_nbytes) == []
        assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_columns(isa, generator, weight):
    """A bias as [n, 1]: with whole matrices alone, and with a product."""
    n = 40
    whole = Matrix(random_tensor(generator, n, 1, torch.float16))
    mapped = Matrix(random_tensor(generator, 7, 1, torch.float16), None, folded(n, 1, 7))
    factors = random_tensor(generator, n, 1, torch.float64 if weight == torch.float64 else torch.float32)
    gain = Matrix(factors.as_strided((n, 1), (1, 0)))
    product = next(products(generator, n, 1, 4, torch.float16))[1]
    for terms in [
        [AnyTerm(whole, 0.5)],
        [AnyTerm(mapped, 0.5), AnyTerm(whole, 0.1, mapped), AnyTerm(whole, 2.0, "base")],
        [AnyTerm(whole, 0.3, mapped, gain, 0.7)],
        [AnyTerm(whole, 0.5), AnyTerm(product, 0.5)],
    ]:
        assert_bits(random_tensor(generator, n, 1, weight), terms, isa)
        assert_bits(random_tensor(generator, n, 3, weight)[:, 1:2], terms, isa)


def test_many_jobs_at_once(isa, generator):
    choice = Choice(generator)
    weights, wanted, keep = [], [], []
    for i in range(40):
        rows, cols, dtype = 1 + 7 * i % 60, 1 + 13 * i % 90, WEIGHTS[i % 3]
        weights.append(random_tensor(generator, rows, cols, dtype))
        keep.append([choice.term(rows, cols, dtype) for _ in range(i % 3)])
        wanted.append(expected(weights[-1], keep[-1])[0])
    assert _C.fuse([job(w, terms) for w, terms in zip(weights, keep, strict=True)], 4, isa) == []
    assert all(same_bits(w, e) for w, e in zip(weights, wanted, strict=True))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("threads", [1, 2, 16, 192, 500])
def test_scratch_is_bounded(isa, generator, weight, threads):
    """Any rank, any kind, any number of threads: 16 MiB for all of them."""
    rows, cols = 700, 9000
    down, up = random_tensor(generator, 640, cols, torch.float16), random_tensor(generator, rows, 640, torch.float16)
    product, gain = Matrix(down, up), Choice(generator).gain(rows, cols, weight)
    term = AnyTerm(product, 1.0, product, gain)
    transposed = torch.zeros(cols, rows, dtype=weight).t()
    for w in (torch.zeros(rows, cols, dtype=weight), transposed):
        used = _C.fuse_scratch_nbytes([job(w, [term, AnyTerm(product, 1.0)])], threads, isa)
        assert 0 < used <= 16 << 20
