"""Which kernel a job goes to, and what the table refuses."""

import pytest
import torch
from fusion_reference import NAMES, job, random_term

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


def test_shared_memory_fits_two_blocks_of_each_architecture(term):
    """Per multiprocessor: 64 KiB on sm_75, 164 on sm_80, 100 on sm_86, one more per block from 80 on."""
    jobs = [job(torch.zeros(8, 16, dtype=w), [term(8, 16, 4)]) for w in (F16, BF16, F32, F64)]
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
