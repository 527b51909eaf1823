"""The ordered kernels give the bits of the CPU's for any shape, rank, type, number of terms, jobs and blocks."""

import pytest
import torch
from emulator import ORDERS
from fusion_reference import FACTORS, NAMES, WEIGHTS, Term, bits, job, random_tensor, random_term, same_bits

from lora_mmap import _C

SHAPES = [(1, 1), (1, 4), (127, 129), (128, 128), (130, 260), (300, 513)]
RANKS = [0, 1, 4, 15, 16, 17, 33, 64]


def on_cpu(weight, terms, isa):
    fused = weight.clone()
    assert _C.fuse([job(fused, terms)], 2, isa) == []
    return fused


def check(gpu, weight, terms, grid=3):
    """Bit for bit as the scalar kernel and as the best, which agree."""
    wanted = on_cpu(weight, terms, "scalar")
    assert same_bits(on_cpu(weight, terms, None), wanted)
    assert gpu.fuse([job(weight, terms)], grid) == []
    assert same_bits(weight, wanted)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_ranks(gpu, generator, weight, shape):
    for rank in RANKS if shape[0] < 200 else [16, 17]:
        w = random_tensor(generator, *shape, weight)
        check(gpu, w, [random_term(generator, *shape, rank)])


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("down", FACTORS, ids=NAMES.get)
def test_factor_types(gpu, generator, weight, down):
    for up in FACTORS:
        w = random_tensor(generator, 9, 20, weight)
        check(gpu, w, [random_term(generator, 9, 20, 8, down, up)])


@pytest.mark.parametrize("dtype", [d for d in FACTORS if d.itemsize == 1], ids=NAMES.get)
def test_every_byte_of_an_8_bit_factor(gpu, dtype):
    """As A, whose NaNs and infinities are overflows, the others exact values."""
    every = torch.arange(256, dtype=torch.uint8).view(dtype).reshape(1, 256)
    up = torch.ones(1, 1)
    for weight in (torch.float32, torch.float64):
        fused = [torch.zeros(1, 256, dtype=weight) for _ in range(2)]
        rows = [
            (*job(w, [])[:9], [(every.data_ptr(), NAMES[dtype], 256, 1, up.data_ptr(), "F32", 1, 1, 1, 0, 0, 1.0)])
            for w in fused
        ]
        assert gpu.fuse(rows[:1]) == _C.fuse(rows[1:], 1)
        finite = torch.isfinite(fused[1])
        assert torch.equal(finite, torch.isfinite(every.float()[0])[None])
        assert torch.equal(bits(fused[0])[finite], bits(fused[1])[finite])


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_terms_are_laid_end_to_end(gpu, generator, weight):
    terms = [
        random_term(generator, 140, 200, rank, dtype, scale=scale)
        for rank, dtype, scale in [
            (5, torch.bfloat16, 0.1),
            (0, torch.float16, 3.0),
            (40, torch.float32, -1 / 3),
            (3, torch.float8_e4m3fn, 1e-3),
            (16, torch.float16, 0.7),
            (8, torch.float64, 0.3),
        ]
    ]
    check(gpu, random_tensor(generator, 140, 200, weight), terms)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [1, 4, 1000])
def test_many_jobs_in_any_order_of_threads(gpu, generator, order, grid):
    weights, wanted, jobs, keep = [], [], [], []
    for i in range(24):
        rows, cols, rank = 1 + 37 * i % 230, 4 * (1 + 13 * i % 60) + i // 20, [4, 16, 33, 0, 40, 7][i % 6]
        w = random_tensor(generator, rows, cols, WEIGHTS[i // 3 % 4])
        terms = [random_term(generator, rows, cols, rank, FACTORS[i % 4]) for _ in range(i % 3)]
        wanted.append(on_cpu(w, terms, None))
        weights.append(w)
        keep.append(terms)
        jobs.append(job(w, terms))
    with gpu.order(order, seed=grid):
        assert gpu.fuse(jobs, grid) == []
    assert all(same_bits(w, e) for w, e in zip(weights, wanted, strict=True))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_subnormals_are_kept(gpu, generator, weight):
    """In the weight, the factors, the product with the scale, the sum and the result."""
    tiny = torch.finfo(weight).tiny
    w = random_tensor(generator, 40, 64, torch.float64) * tiny / 2
    term = random_term(generator, 40, 64, 12, torch.float32)
    term.up.mul_(1e-20)
    term.down.mul_(min(tiny * 1e20, 1e18))
    check(gpu, w.to(weight), [term])
    half = random_term(generator, 40, 64, 12, torch.float16)
    half.down.mul_(2.0**-16)
    half.up.mul_(2.0**-16)
    check(gpu, torch.zeros(40, 64, dtype=weight), [half])


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_no_terms_adds_zero(gpu, weight):
    w = torch.tensor([[-0.0, 0.0, 1.5, -2.25]], dtype=weight)
    assert gpu.fuse([job(w, [])]) == []
    assert same_bits(w, torch.tensor([[0.0, 0.0, 1.5, -2.25]], dtype=weight))


def test_empty_calls(gpu):
    assert gpu.fuse([]) == []
    assert gpu.fuse([(0, 0, 0, 5, 1, 1, 1, 1, "F16", []), (0, 0, 5, 0, 1, 1, 1, 1, "F64", [])]) == []


@pytest.mark.parametrize("rank", [3, 4, 16, 20])
def test_a_negative_zero_of_the_sum_stays(gpu, rank):
    """One rank more than there are, of zeros, would make it positive, and with it the weight's -0."""
    down, up = torch.full((rank, 8), -0.0), torch.zeros(4, rank)
    down[0], up[:, 0] = 1e-30, -1e-30
    w = torch.full((4, 8), -0.0)
    check(gpu, w, [Term(down, up, 1.0)])
    assert torch.signbit(w).all()
