"""The tensor-core kernels: within the bound of docs/numerics.md of the sum in float64, whatever the grid."""

import pytest
import torch
from emulator import ORDERS
from fusion_reference import NAMES, Term, bits, job, random_tensor, random_term, same_bits
from numerics_bound import reference, ulp

from lora_mmap import _C

NARROW = [torch.float16, torch.bfloat16]
WEIGHTS = [*NARROW, torch.float32]


def kernels(gpu, jobs):
    return {launch[0] for launch in _C.cuda_fuse_table(jobs, True, gpu.arch)[1]}


def fits(gpu, dtype):
    return gpu.arch >= 80 or dtype == torch.float16


def assert_within_bound(fused, pristine, terms):
    """docs/numerics.md: ulp(W') + (R + 2) * 2^-23 * sum |terms|."""
    wanted, magnitude, rank = reference(pristine, [(t.down, t.up, float(torch.tensor(t.scale))) for t in terms])
    bound = ulp(fused) + (rank + 2) * 2.0**-23 * magnitude
    assert ((fused.double() - wanted).abs() <= bound).all()


def check(gpu, w, terms, grid=3):
    pristine = w.clone()
    assert gpu.fuse([job(w, terms)], grid, fast=True) == []
    assert_within_bound(w, pristine, terms)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("factor", NARROW, ids=NAMES.get)
@pytest.mark.parametrize("shape", [(1, 8), (128, 64), (129, 72), (300, 200)], ids=str)
def test_bound(gpu, generator, weight, factor, shape):
    for rank in (1, 4, 16, 17, 40, 64) if shape[0] < 200 else (24,):
        w = random_tensor(generator, *shape, weight)
        terms = [random_term(generator, *shape, rank, factor)]
        name = f"lora_mmap_fuse_fast_{NAMES[weight].lower()}"
        if fits(gpu, factor):
            assert kernels(gpu, [job(w, terms)]) == {name}
        check(gpu, w, terms)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_terms_of_both_types(gpu, generator, weight):
    terms = [
        random_term(generator, 130, 136, rank, dtype, scale=scale)
        for rank, dtype, scale in [
            (8, NARROW[0], 0.5),
            (0, NARROW[1], 1.0),
            (33, NARROW[1], -0.3),
            (16, NARROW[0], 2.0),
        ]
    ]
    check(gpu, random_tensor(generator, 130, 136, weight), terms)


def test_bits_do_not_depend_on_grid_and_order(gpu, generator):
    def jobs():
        torch.manual_seed(5)
        made, keep = [], []
        for i in range(12):
            rows, cols = 1 + 37 * i % 230, 8 * (1 + 5 * i % 31)
            w = torch.randn(rows, cols).to(WEIGHTS[i // 2 % 3])
            terms = [
                random_term(torch.Generator().manual_seed(i), rows, cols, [4, 16, 33, 50][i % 4])
                for _ in range(1 + i % 2)
            ]
            keep.append((w, terms))
            made.append(job(w, terms))
        return made, keep

    results = []
    for order, grid in zip(ORDERS, (1, 3, 1000), strict=True):
        made, keep = jobs()
        with gpu.order(order, seed=grid):
            assert gpu.fuse(made, grid, fast=True) == []
        results.append([w for w, _ in keep])
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_unaligned_factors_and_base_elsewhere(gpu, generator, weight):
    down = random_tensor(generator, 20, 99, torch.float16)[:, 3:91]
    up = random_tensor(generator, 140, 27, torch.float16)[:, 5:25]
    base = random_tensor(generator, 140, 104, weight)[:, :88]
    w = torch.zeros(140, 88, dtype=weight)
    before = base.clone()
    terms = [Term(down, up, 0.5)]
    assert gpu.fuse([job(w, terms, base)], fast=True) == []
    assert_within_bound(w, before, terms)
    assert same_bits(base, before)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_not_finite(gpu, generator, weight):
    w = random_tensor(generator, 130, 72, weight)
    w[3, 5], w[129, 71], w[64, 64] = float("inf"), float("nan"), float("-inf")
    before = w.clone()
    term = random_term(generator, 130, 72, 8)
    assert gpu.fuse([job(w, [term])], fast=True) == []
    for at in ((3, 5), (129, 71), (64, 64)):
        assert bits(w)[at] == bits(before)[at]
    fine = torch.zeros_like(w)
    bad = torch.zeros_like(w)
    bad[129, 70] = torch.finfo(weight).max
    term.up[129], term.down[:, 70], term.scale = 1.0, 1.0, torch.finfo(weight).max / 4
    assert gpu.fuse([job(bad, [term])], fast=True) == [0]
    assert gpu.fuse([job(fine, []), job(bad, [term]), job(fine, [])], fast=True) == [1]


def test_what_does_not_fit_is_computed_in_order(gpu, generator):
    wide = random_term(generator, 16, 16, 8, torch.float32)
    mixed = random_term(generator, 16, 16, 8, torch.float16, torch.bfloat16)
    mapped = random_term(generator, 16, 16, 8)
    mapped.row_map = torch.arange(16, dtype=torch.int32)
    for weight in [*WEIGHTS, torch.float64]:
        for term in (wide, mixed, mapped):
            w = random_tensor(generator, 16, 16, weight)
            wanted = w.clone()
            assert _C.fuse([job(wanted, [term])], 1) == []
            assert gpu.fuse([job(w, [term])], fast=True) == []
            assert same_bits(w, wanted)
