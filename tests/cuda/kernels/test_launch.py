"""Whole launches on the fake driver: the table goes through the ring, the kernels run on the stream."""

import ctypes

import pytest
import torch
from fusion_reference import Term, job, random_tensor, random_term, same_bits

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


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
        nbytes = _C.cuda_fuse_table_nbytes(jobs)
        table = self.fake.alloc(nbytes, self.stream)
        flags = self.put(torch.zeros(len(jobs), dtype=torch.int32))
        _C.cuda_fuse(0, self.stream, jobs, fast, table, nbytes, flags.data_ptr())
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
    nbytes = _C.cuda_copy_table_nbytes(rects)
    table = device.fake.alloc(nbytes, device.stream)
    _C.cuda_copy(0, device.stream, rects, table, nbytes)
    device.fake.synchronize(device.stream)
    assert torch.equal(target, source)


def test_a_table_without_room_is_refused_before_anything_is_launched(device):
    w = device.put(torch.zeros(4, 8))
    before = device.fake.counts["launches"]
    with pytest.raises(ArgumentError, match=r"\[cuda_fuse\] the table takes \d+ bytes, given 8"):
        _C.cuda_fuse(0, device.stream, [job(w, [])], False, device.fake.alloc(64, device.stream), 8, 0)
    table = device.fake.alloc(512, device.stream)
    with pytest.raises(ArgumentError, match="not aligned to 16 bytes"):
        _C.cuda_fuse(0, device.stream, [job(w, [])], False, table + 8, 500, 0)
    assert device.fake.counts["launches"] == before


def test_nothing_to_do(device):
    _C.cuda_fuse(0, device.stream, [], False, 0, 0, 0)
    _C.cuda_copy(0, device.stream, [], 0, 0)
