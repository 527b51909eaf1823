"""Terms of every kind on the GPU's kernels: the bits of the CPU's scalar kernel."""

import pytest
import torch
from emulator import ORDERS
from fusion_reference import FACTORS, NAMES, WEIGHTS, bits, job, random_tensor, random_term, same_bits
from term_kinds import AnyTerm, Choice, Matrix, folded, products, whole_matrices

from lora_mmap import _C


def on_cpu(weight, terms, base=None):
    fused = weight.clone()
    assert _C.fuse([job(fused, terms, base)], 1, "scalar") == []
    return fused


def check(gpu, w, terms, grid=3):
    wanted = on_cpu(w, terms)
    assert gpu.fuse([job(w, terms)], grid) == []
    assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_whole_matrices_and_products(gpu, generator, weight):
    """Every way in which either may lie, alone and times something."""
    rows, cols = 70, 150
    other = Matrix(random_tensor(generator, rows, cols, torch.bfloat16))
    for rank in (0, 5, 37):
        for _, matrix in products(generator, rows, cols, rank, torch.float16, torch.bfloat16):
            check(gpu, random_tensor(generator, rows, cols, weight), [AnyTerm(matrix, 0.37)])
            check(gpu, random_tensor(generator, rows, cols, weight), [AnyTerm(matrix, 0.1, other)])
    for _, matrix in whole_matrices(generator, rows, cols, torch.float16):
        check(gpu, random_tensor(generator, rows, cols, weight), [AnyTerm(matrix, 0.37)])
        check(gpu, random_tensor(generator, rows, cols, weight), [AnyTerm(other, 0.37, matrix)])


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("dtype", FACTORS, ids=NAMES.get)
def test_factor_types(gpu, generator, weight, dtype):
    whole = Matrix(random_tensor(generator, 9, 20, dtype))
    product = next(products(generator, 9, 20, 3, dtype))[1]
    terms = [AnyTerm(whole, 0.5), AnyTerm(whole, 0.5, product), AnyTerm(product, 0.1, "base")]
    check(gpu, random_tensor(generator, 9, 20, weight), terms)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("seed", range(3))
def test_kinds_in_any_order(gpu, weight, seed):
    choice = Choice(torch.Generator().manual_seed(seed))
    for _ in range(4):
        rows, cols = choice.of([1, 4, 63, 64, 67, 131]), choice.of([1, 8, 65, 127, 128, 261])
        base = random_tensor(choice.generator, rows, cols, weight)
        terms = [choice.term(rows, cols, weight) for _ in range(1 + choice.below(4))]
        terms.insert(choice.below(len(terms) + 1), random_term(choice.generator, rows, cols, 9))
        wanted = on_cpu(torch.zeros_like(base), terms, base)
        for view in (
            torch.zeros(rows, cols + 3, dtype=weight)[:, :cols],
            torch.zeros(cols, rows, dtype=weight).t(),
            torch.zeros(2 * rows, 3 * cols, dtype=weight)[::2, ::3],
        ):
            assert gpu.fuse([job(view, terms, base)]) == []
            assert same_bits(view, wanted)
        assert gpu.fuse([job(base, terms)]) == []
        assert same_bits(base, wanted)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [1, 1000])
def test_many_jobs_in_any_order_of_threads(gpu, generator, order, grid):
    """Beside plain pairs, which go to the kernels they have always gone to."""
    choice = Choice(generator)
    weights, wanted, jobs, keep = [], [], [], []
    for i in range(16):
        rows, cols, dtype = 1 + 29 * i % 130, 4 * (1 + 17 * i % 50), WEIGHTS[i % 4]
        w = random_tensor(generator, rows, cols, dtype)
        plain = [random_term(generator, rows, cols, 8)]
        terms = plain if i % 3 == 0 else [choice.term(rows, cols, dtype) for _ in range(i % 3)]
        wanted.append(on_cpu(w, terms))
        weights.append(w)
        keep.append(terms)
        jobs.append(job(w, terms))
    with gpu.order(order, seed=grid):
        assert gpu.fuse(jobs, grid) == []
    assert all(same_bits(w, e) for w, e in zip(weights, wanted, strict=True))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shift", [1, 4])
def test_misaligned_factors(gpu, generator, weight, shift):
    def shifted(matrix):
        raw = torch.zeros(matrix.down.nbytes + shift, dtype=torch.uint8)
        raw[shift:] = matrix.down.view(torch.uint8).flatten()
        keep.append(raw)
        return (raw.data_ptr() + shift, *matrix.as_tuple()[1:])

    keep = []
    for dtype in (torch.float16, torch.float32, torch.float64, torch.float8_e5m2):
        whole = Matrix(random_tensor(generator, 9, 21, dtype))
        terms = [(*shifted(whole), 0.5), (*shifted(whole), 0.5, whole.as_tuple(), None, 1.0)]
        w = random_tensor(generator, 9, 21, weight)
        wanted = w.clone()
        assert _C.fuse([(*job(wanted, [])[:9], terms)], 1, "scalar") == []
        assert gpu.fuse([(*job(w, [])[:9], terms)]) == []
        assert same_bits(w, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_subnormals_are_kept(gpu, generator, weight):
    tiny = torch.finfo(weight).tiny
    w = (random_tensor(generator, 20, 40, torch.float64) * tiny / 2).to(weight)
    small = random_tensor(generator, 20, 40, torch.float32) * 1e-25
    product = next(products(generator, 20, 40, 3, torch.float32))[1]
    product.up.mul_(1e-20)
    gain = Matrix(torch.ones(20, 1, dtype=torch.float64 if weight == torch.float64 else torch.float32).expand(20, 40))
    whole = Matrix(small)
    terms = [AnyTerm(whole, 1e-15), AnyTerm(product, 1e-20, whole), AnyTerm(whole, 1e-3, "base")]
    check(gpu, w, [*terms, AnyTerm(whole, 1e-17, None, gain, 0.5)])


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_not_finite(gpu, generator, weight):
    """In a weight its bits stay, whatever is multiplied by it; what becomes so is an overflow."""
    w = random_tensor(generator, 70, 72, weight)
    w[3, 5], w[69, 71], w[64, 64] = float("inf"), float("nan"), float("-inf")
    before = w.clone()
    rows = Matrix(random_tensor(generator, 70, 1, torch.float32).expand(70, 72))
    terms = [AnyTerm(rows, 0.5, "base")]
    wanted = on_cpu(w, terms)
    assert gpu.fuse([job(w, terms)]) == []
    assert same_bits(w, wanted)
    for at in ((3, 5), (69, 71), (64, 64)):
        assert bits(w)[at] == bits(before)[at]
    for kind in (None, "base", Matrix(torch.full((70, 72), 2.0))):
        fine, bad = (torch.ones(70, 72, dtype=weight) for _ in range(2))
        matrix = Matrix(torch.zeros(70, 72, dtype=torch.float64))
        assert gpu.fuse([job(fine, [AnyTerm(matrix, 1.0, kind)])]) == []
        matrix.down[69, 70] = float("inf")
        assert gpu.fuse([job(fine, []), job(bad, [AnyTerm(matrix, 1.0, kind)])]) == [1]


def test_a_negative_zero_of_the_sum_stays(gpu):
    w = torch.full((4, 8), -0.0)
    tiny = Matrix(torch.full((4, 8), -1e-30))
    check(gpu, w, [AnyTerm(tiny, 1e-30)])
    assert torch.signbit(w).all()


def test_fast_is_ordered_for_them(gpu, generator):
    choice = Choice(generator)
    w = random_tensor(generator, 64, 64, torch.float16)
    terms = [random_term(generator, 64, 64, 16), AnyTerm(choice.matrix(64, 64), 0.5)]
    wanted = on_cpu(w, terms)
    assert gpu.fuse([job(w, terms)], fast=True) == []
    assert same_bits(w, wanted)


def test_embeddings_and_maps_of_a_kronecker_product(gpu, generator):
    """up[e, r] = A[r, e]; p1[m / o2, n / i2] * p2[m % o2, n % i2]."""
    down, up = random_tensor(generator, 8, 96, torch.float16), random_tensor(generator, 8, 130, torch.float16).t()
    check(gpu, random_tensor(generator, 130, 96, torch.bfloat16), [AnyTerm(Matrix(down, up), 0.5)])
    outer = Matrix(random_tensor(generator, 13, 8, torch.float16), None, folded(130, 10, 13), folded(96, 12, 8))
    inner = Matrix(random_tensor(generator, 10, 12, torch.float16), None, folded(130, 1, 10), folded(96, 1, 12))
    check(gpu, random_tensor(generator, 130, 96, torch.bfloat16), [AnyTerm(outer, 0.5, inner)])
