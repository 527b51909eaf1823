"""Which kernel a job goes to, and what the table refuses."""

import pytest
import torch
from fusion_reference import NAMES, job, random_term
from term_kinds import AnyTerm, Matrix, Norms

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.fixture
def term(generator):
    return lambda *args, **kwargs: random_term(generator, *args, **kwargs)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def kernels(jobs, fast=False, arch=90):
    return [launch[0] for launch in _C.cuda_fuse_table(jobs, fast, arch)[1]]


@pytest.mark.parametrize("weight", [F16, BF16, F32], ids=NAMES.get)
def test_ordinary_jobs_are_ordered_or_fast(term, weight):
    jobs = [job(torch.zeros(8, 16, dtype=weight), [term(8, 16, 4)])]
    name = NAMES[weight].lower()
    assert kernels(jobs) == [f"lora_mmap_fuse_ordered_{name}"]
    assert kernels(jobs, fast=True) == [f"lora_mmap_fuse_fast_{name}"]


def test_bf16_factors_are_fast_from_sm_80_on(term):
    jobs = [job(torch.zeros(8, 16, dtype=BF16), [term(8, 16, 4, BF16)])]
    assert kernels(jobs, fast=True, arch=80) == ["lora_mmap_fuse_fast_bf16"]
    assert kernels(jobs, fast=True, arch=75) == ["lora_mmap_fuse_ordered_bf16"]


def test_what_the_ordered_kernels_do_not_take(term):
    def any_kernel(weight, terms):
        return kernels([job(weight, terms)]) == ["lora_mmap_fuse_any"]

    w = torch.zeros(8, 16, dtype=F16)
    assert not any_kernel(w, [term(8, 16, 4), term(8, 16, 0, F64)])
    assert any_kernel(w, [term(8, 16, 4), term(8, 16, 3)])
    assert any_kernel(w, [term(8, 16, 4, F64)])
    assert any_kernel(w, [term(8, 16, 4, F16, BF16)])
    assert any_kernel(torch.zeros(16, 8, dtype=F16).t(), [term(8, 16, 4)])
    assert any_kernel(torch.zeros(8, 15, dtype=F16), [term(8, 15, 4)])
    assert any_kernel(torch.zeros(8, 17, dtype=F16)[:, :16], [term(8, 16, 4)])
    assert kernels([job(torch.zeros(8, 15, dtype=F64), [term(8, 15, 3)])]) == ["lora_mmap_fuse_f64"]


@pytest.mark.parametrize("fast", [False, True])
def test_terms_of_other_kinds_have_kernels_of_their_own(term, fast):
    """And take no plain job with them."""
    matrix = Matrix(torch.zeros(8, 16, dtype=F16))
    product = Matrix(torch.zeros(16, 4, dtype=F16).t(), torch.zeros(8, 4, dtype=F16))
    gain = Matrix(torch.ones(8, 1).as_strided((8, 16), (1, 0)))
    plain = Matrix(torch.zeros(4, 16, dtype=F16), torch.zeros(8, 4, dtype=F16))
    kinds = [
        AnyTerm(matrix, 1.0),
        AnyTerm(product, 1.0),
        AnyTerm(plain, 1.0, matrix),
        AnyTerm(plain, 1.0, "base"),
        AnyTerm(plain, 1.0, None, gain),
    ]
    for weight in (F16, BF16, F32):
        ordinary = job(torch.zeros(8, 16, dtype=weight), [term(8, 16, 4), AnyTerm(plain, 1.0)])
        for other in kinds:
            jobs = [job(torch.zeros(8, 16, dtype=weight), [term(8, 16, 4), other]), ordinary]
            assert sorted(kernels(jobs, fast)) == sorted([*kernels([ordinary], fast), "lora_mmap_fuse_terms"])
    assert kernels([job(torch.zeros(8, 16, dtype=F64), [kinds[0]])], fast) == ["lora_mmap_fuse_terms_f64"]


def test_a_plain_table_has_no_room_for_other_terms(term):
    jobs = [job(torch.zeros(8, 16, dtype=F16), [term(8, 16, 4)])]
    alone, [(*_, end_of_terms, _)] = _C.cuda_fuse_table(jobs, False, 90)
    other = job(torch.zeros(8, 16, dtype=F16), [AnyTerm(Matrix(torch.zeros(8, 16)), 1.0)])
    table, launches = _C.cuda_fuse_table([*jobs, other], False, 90)
    assert {launch[0]: launch[6] for launch in launches} == {
        "lora_mmap_fuse_ordered_f16": 0,
        "lora_mmap_fuse_terms": end_of_terms,
    }
    assert len(table) > len(alone)


def test_gains_are_sums_then_factors():
    base = torch.zeros(70, 300, dtype=F16)
    change = AnyTerm(Matrix(torch.zeros(70, 300)), 1.0)
    norms = [
        Norms(base, change, False, torch.ones(1, 70)),
        Norms(base, change, True, torch.ones(1, 300)),
        Norms(base.double(), AnyTerm(Matrix(torch.zeros(70, 300)), 1.0), True, torch.ones(1, 300)),
    ]
    _, launches, sums_nbytes = _C.cuda_gains_table([n.as_tuple() for n in norms])
    assert [(kernel, tiles, rows) for kernel, _, _, tiles, rows, *_ in launches] == [
        ("lora_mmap_norms", 2 + 3, 2),
        ("lora_mmap_norms_f64", 5, 1),
        ("lora_mmap_gains", 1 + 2 + 2, 3),
    ]
    assert sums_nbytes == 8 * (70 + 300 + 300)


def test_shared_memory_fits_two_blocks_of_each_architecture(term):
    """Per multiprocessor: 64 KiB on sm_75, 164 on sm_80, 100 on sm_86, one more per block from 80 on."""
    weights = [torch.zeros(8, 16, dtype=dtype) for dtype in (F16, BF16, F32, F64)]
    jobs = [job(w, [term(8, 16, 4)]) for w in weights]
    jobs += [job(w, [AnyTerm(Matrix(torch.zeros(8, 16)), 1.0)]) for w in weights]
    for arch, most in [
        (75, 32 << 10),
        (80, 81 << 10),
        (86, 49 << 10),
        (89, 49 << 10),
        (90, 113 << 10),
        (120, 49 << 10),
    ]:
        for fast in (False, True):
            for kernel, threads, shared_nbytes, *_ in _C.cuda_fuse_table(jobs, fast, arch)[1]:
                if arch == 75 and "fast" in kernel:
                    assert shared_nbytes <= 64 << 10  # one block
                else:
                    assert shared_nbytes <= most, (kernel, arch)
                assert threads == 256


def test_sizes(term):
    jobs = [job(torch.zeros(300, 300, dtype=w), [term(300, 300, 4), term(300, 300, 0)]) for w in (F16, F16, F64)]
    table, launches = _C.cuda_fuse_table(jobs, False, 90)
    assert {kernel: (tiles, rows) for kernel, _, _, tiles, rows, *_ in launches} == {
        "lora_mmap_fuse_ordered_f16": (18, 2),
        "lora_mmap_fuse_f64": (25, 1),
    }
    assert len(table) % 8 == 0


def test_refusals(term):
    good = job(torch.zeros(8, 16), [term(8, 16, 4)])
    for at, value, message in [
        (2, -1, "negative size"),
        (2, 2**31, "less than 2\\^31"),
        (4, 0, "a stride is 0"),
        (0, 0, "null pointer"),
        (8, "I8", "a weight of type I8"),
    ]:
        bad = list(good)
        bad[at] = value
        with pytest.raises(ArgumentError, match=f"\\[fuse\\] job 1: .*{message}"):
            _C.cuda_fuse_table([good, tuple(bad)], False, 90)
    long = (*good[9][0][:8], 2**31, *good[9][0][9:])
    with pytest.raises(ArgumentError, match="rank is 2147483648"):
        _C.cuda_fuse_table([(*good[:9], [long])], False, 90)
