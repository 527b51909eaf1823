"""Steps and records on the fake device: the calls that the streams of factors make, and what they hold there."""

import pytest
import torch
from fusion_reference import NAMES, Term, job, random_tensor, random_term, same_bits

from lora_mmap import _C
from lora_mmap.cuda import device_record, launches
from lora_mmap.cuda.device_record import DeviceRecord
from lora_mmap.errors import ArgumentError

CUDA = torch.device("cuda", 0)
SHAPE = (200, 300)


class Side:
    """Weights, factors and flags in the fake device's memory."""

    def __init__(self, torch_side):
        self.torch = torch_side

    def put(self, tensor, index=0):
        self.torch.synchronize()  # the host writes, so nothing that was submitted may still do so
        return self.torch.copy_of(tensor, index)

    def term(self, term):
        return Term(self.put(term.down), self.put(term.up), term.scale)

    def record(self, weight, corrections=True):
        return DeviceRecord(*weight.shape, NAMES[weight.dtype], corrections, CUDA)

    def step(self, *steps, force=False):
        flags = self.put(torch.zeros(len(steps), dtype=torch.int32))
        launches.step(CUDA, list(steps), flags.data_ptr(), force)
        self.torch.synchronize()
        return flags.tolist()


@pytest.fixture
def side(torch_side):
    return Side(torch_side)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(31)


def layer(terms, record, values=None):
    place = (0, 0, 0) if values is None else (values.data_ptr(), *values.stride())
    return ([term.as_tuple() for term in terms], record, *place)


def step(weight, old=None, new=None, out=None):
    place = None if out is None else (out.data_ptr(), *out.stride())
    form = (weight.data_ptr(), *weight.shape, *weight.stride(), NAMES[weight.dtype])
    return (*form, old and layer(*old), new and layer(*new), place)


def trim(record):
    """Gives back what a record does not need for corrections."""
    used = int(record._read(4).view("<u4")[0])
    device_record.shrink_to_words([record], [used])


def fused(weight, terms):
    wanted = weight.clone()
    assert _C.fuse([job(wanted, terms)], 1) == []
    return wanted


@pytest.mark.parametrize("mode", ["eager", "lazy", "random"])
def test_many_weights_in_two_launches(side, fake_cuda, generator, mode):
    fake_cuda.mode(mode, 7)
    kinds = [torch.float16, torch.bfloat16, torch.float32]
    pristine = [random_tensor(generator, 50 + i, 70 + i, kinds[i % 3]) for i in range(9)]
    sets = [[random_term(generator, *p.shape, 4, p.dtype, scale=0.02 + 0.01 * i)] for i in range(2) for p in pristine]
    placed = [side.put(p) for p in pristine]
    terms = [[side.term(t) for t in each] for each in sets]
    records = [side.record(p) for p in placed + placed]
    before = fake_cuda.counts["launches"]
    assert side.step(*(step(p, None, (t, r)) for p, t, r in zip(placed, terms, records, strict=False))) == [0] * 9
    assert fake_cuda.counts["launches"] - before == 2  # rows in groups of four, and others
    layers = list(zip(terms, records, strict=True))
    assert side.step(*(step(p, old, new) for p, old, new in zip(placed, layers, layers[9:], strict=False))) == [0] * 9
    for now, was, adapters in zip(placed, pristine, sets[9:], strict=True):
        assert same_bits(now, fused(was, adapters))
    assert [record.written for record in records] == [0] * 9 + [record.tiles for record in records[9:]]
    assert side.step(*(step(p, old) for p, old in zip(placed, layers[9:], strict=True))) == [0] * 9
    assert all(same_bits(now, was) for now, was in zip(placed, pristine, strict=True))


def test_what_a_record_holds(side, generator):
    """An eighth of the weight while it is written, then what it needs, then hashes alone."""
    pristine = random_tensor(generator, 512, 512, torch.bfloat16)
    weight, terms = side.put(pristine), [side.term(random_term(generator, 512, 512, 4, scale=0.01))]
    before = side.torch.held[0]
    record = side.record(weight)
    assert record.backup_nbytes == pristine.nbytes
    assert 0 < record.nbytes - record.backup_nbytes // 8 <= 24 * record.tiles + 8
    assert side.step(step(weight, new=(terms, record))) == [0]
    trim(record)
    assert record.nbytes < 0.04 * record.backup_nbytes
    assert side.torch.held[0] - before == record.nbytes
    assert side.step(step(weight, old=(terms, record))) == [0]
    assert same_bits(weight, pristine)
    assert side.step(step(weight, new=(terms, record))) == [0]
    backup = side.put(torch.zeros_like(pristine))
    assert side.step(step(weight, old=(terms, record), out=backup)) == [0]
    assert same_bits(backup, pristine)
    record.forget_corrections()
    assert not record.has_corrections
    assert record.nbytes == 24 * record.tiles + 8
    assert side.step(step(weight, old=(terms, record, backup))) == [0]
    assert same_bits(weight, pristine)


def test_pristine_values_in_pinned_memory(side, fake_cuda, generator):
    """Read where they are, and the block is freed when that is over."""
    fake_cuda.mode("lazy")
    pristine = random_tensor(generator, *SHAPE, torch.float16)
    weight, record = side.put(pristine), side.record(pristine, corrections=False)
    terms = [side.term(random_term(generator, *SHAPE, 4))]
    block = _C.CudaPinnedBlock(0, pristine.nbytes)
    rect = (block.address, weight.data_ptr(), *SHAPE, SHAPE[1], 1, SHAPE[1], 1, 2)
    launches.copy(CUDA, [rect])
    flags = side.put(torch.zeros(2, dtype=torch.int32))
    launches.step(CUDA, [step(weight, new=(terms, record))], flags.data_ptr())
    old = ([term.as_tuple() for term in terms], record, block.address, SHAPE[1], 1)
    launches.step(CUDA, [(*step(weight)[:6], old, None, None)], flags.data_ptr() + 4)
    del block
    assert same_bits(weight, pristine)
    assert flags.tolist() == [0, 0]


def test_where_somebody_wrote(side, generator):
    pristine = random_tensor(generator, *SHAPE, torch.float32)
    weight, record = side.put(pristine), side.record(pristine)
    terms = [side.term(random_term(generator, *SHAPE, 4))]
    assert side.step(step(weight, new=(terms, record))) == [0]
    assert record.foreign_tile is None
    weight[199, 140] += 1
    assert side.step(step(weight, old=(terms, record))) == [launches.FOREIGN]
    assert record.foreign_tile == (192, 128)
    assert record.written == 1
    assert side.step(step(weight, old=(terms, record)), force=True) == [0]
    assert record.written == 0


def test_a_record_of_something_else(side, generator):
    weight = side.put(random_tensor(generator, *SHAPE, torch.float16))
    with pytest.raises(ArgumentError, match=r"\[step\] a record of 200 x 300 F32, expected 200 x 300 F16"):
        side.step(step(weight, new=([], side.record(weight.float()))))
    elsewhere = DeviceRecord(*SHAPE, "F16", True, torch.device("cuda", 1))
    with pytest.raises(ArgumentError, match=r"\[step\] a record of cuda:1 for a weight on cuda:0"):
        side.step(step(weight, new=([], elsewhere)))
    with pytest.raises(ArgumentError, match=r"\[step\] a record of I8"):
        DeviceRecord(*SHAPE, "I8", True, CUDA)


def test_a_copy_that_fails_leaves_a_record_as_it_was(side, fake_cuda, generator):
    from lora_mmap.errors import CudaError

    pristine = random_tensor(generator, *SHAPE, torch.bfloat16)
    weight, record = side.put(pristine), side.record(pristine)
    terms = [side.term(random_term(generator, *SHAPE, 4, scale=0.01))]
    assert side.step(step(weight, new=(terms, record))) == [0]
    nbytes = record.nbytes
    fake_cuda.fail(1, "cuLaunchKernel")
    with pytest.raises(CudaError):
        trim(record)
    fake_cuda.fail(0)
    assert record.nbytes == nbytes
    assert side.step(step(weight, old=(terms, record))) == [0]
    assert same_bits(weight, pristine)
