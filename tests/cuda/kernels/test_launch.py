"""Whole launches on the fake driver: the table goes over first, the kernels run on the stream."""

import ctypes

import pytest
import torch
from fusion_reference import Term, job, random_tensor, random_term, same_bits

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, CudaError


@pytest.fixture
def device(fake_cuda):
    return Device(fake_cuda)


class Device:
    """Tensors in the fake device's memory, and calls on one stream."""

    def __init__(self, fake):
        self.fake = fake
        self.stream = fake.stream()

    def put(self, tensor):
        address = self.fake.alloc(max(tensor.nbytes, 1), self.stream)
        host = (ctypes.c_char * max(tensor.nbytes, 1)).from_address(address)
        placed = torch.frombuffer(host, dtype=tensor.dtype, count=tensor.numel()).reshape(tensor.shape)
        placed.copy_(tensor)
        return placed

    def fuse(self, jobs, fast=False):
        launches = _C.CudaLaunches.fuse(0, jobs, fast)
        table = self.fake.alloc(launches.table_nbytes, self.stream)
        flags = self.put(torch.zeros(len(jobs), dtype=torch.int32))
        launches.submit(self.stream, table, flags.data_ptr())
        self.fake.synchronize(self.stream)
        return flags.nonzero().flatten().tolist()


def on_device(device, term):
    return Term(device.put(term.down), device.put(term.up), term.scale)


@pytest.mark.parametrize("mode", ["eager", "lazy", "random"])
def test_fuse_is_the_cpus(device, generator, mode):
    device.fake.mode(mode, seed=4)
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    weights = [random_tensor(generator, 40 + i, 60 + i, kinds[i % 4]) for i in range(8)]
    terms = [random_term(generator, *w.shape, 8) for w in weights]
    wanted = [w.clone() for w in weights]
    assert _C.fuse([job(w, [t]) for w, t in zip(wanted, terms, strict=True)], 2) == []
    placed = [device.put(w) for w in weights]
    held = [on_device(device, t) for t in terms]
    before = device.fake.counts["launches"]
    assert device.fuse([job(w, [t]) for w, t in zip(placed, held, strict=True)]) == []
    assert device.fake.counts["launches"] - before <= 5
    assert all(same_bits(a, b) for a, b in zip(placed, wanted, strict=True))


def test_overflow_flags(device):
    big = device.put(torch.full((4, 8), 65504.0, dtype=torch.float16))
    fine = device.put(torch.ones(4, 8, dtype=torch.float16))
    term = Term(device.put(torch.ones(4, 8)), device.put(torch.full((4, 4), 100.0)), 1.0)
    assert device.fuse([job(fine, [term]), job(big, [term])]) == [1]


def test_fast_goes_to_other_kernels(device, generator):
    w = random_tensor(generator, 130, 72, torch.bfloat16)
    term = random_term(generator, 130, 72, 16, torch.bfloat16)
    ordered, fast = device.put(w), device.put(w)
    held = on_device(device, term)
    assert device.fuse([job(ordered, [held])]) == []
    assert device.fuse([job(fast, [held])], fast=True) == []
    assert (ordered.float() - fast.float()).abs().max() <= 0.07
    assert not same_bits(fast, w)


def test_copy(device):
    source = device.put(torch.arange(4000, dtype=torch.int16))
    target = device.put(torch.zeros(4000, dtype=torch.int16))
    rects = [(target.data_ptr(), source.data_ptr(), 1, 4000, 1, 1, 1, 1, 2)]
    launches = _C.CudaLaunches.copy(0, rects)
    launches.submit(device.stream, device.fake.alloc(launches.table_nbytes, device.stream))
    device.fake.synchronize(device.stream)
    assert torch.equal(target, source)


def test_a_job_that_makes_no_sense_is_refused_before_anything_is_launched(device):
    before = device.fake.counts["launches"]
    with pytest.raises(ArgumentError, match=r"\[fuse\] job 0: a stride is 0"):
        _C.CudaLaunches.fuse(0, [(*job(device.put(torch.zeros(4, 8)), [])[:4], 0, 1, 8, 1, "F32", [])], False)
    assert device.fake.counts["launches"] == before


@pytest.mark.parametrize("fails", ["cuMemcpyHtoDAsync", "cuEventRecord", "cuLaunchKernel"])
def test_a_launch_that_fails(device, generator, fails):
    """The table's buffer is not in use when the next launch takes it, whatever failed."""
    device.fake.mode("lazy")
    w = random_tensor(generator, 40, 24, torch.float16)
    placed, term = device.put(w), random_term(generator, 40, 24, 8, torch.float16)
    held = on_device(device, term)
    device.fake.fail(1, fails)
    with pytest.raises(CudaError, match=f"{fails} failed on cuda:0"):
        device.fuse([job(placed, [held])])
    device.fake.fail(0)
    assert device.fuse([job(placed, [held])]) == []
    _C.fuse([job(w, [term])], 1)
    assert same_bits(placed, w)


def test_nothing_to_do(device):
    for launches in (_C.CudaLaunches.fuse(0, [], False), _C.CudaLaunches.copy(0, [])):
        assert launches.table_nbytes == 0
        launches.submit(device.stream, 0)
    assert device.fake.counts["launches"] == 0
