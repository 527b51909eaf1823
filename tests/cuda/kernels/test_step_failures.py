"""What a step cannot do leaves tiles as they were, says so, and is taken back by the same step the other way round."""

import pytest
import torch
from emulated_steps import FOREIGN, FULL, Record, planted, step
from emulator import ORDERS
from fusion_reference import NAMES, job, random_tensor, random_term, same_bits

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

KINDS = [torch.float16, torch.bfloat16, torch.float32]
SHAPE = (130, 300)


def fused(weight, terms):
    wanted = weight.clone()
    assert _C.fuse([job(wanted, terms)], 1) == []
    return wanted


@pytest.fixture(params=KINDS, ids=NAMES.get)
def pristine(request, generator):
    return random_tensor(generator, *SHAPE, request.param)


@pytest.fixture
def adapters(generator, pristine):
    return [[random_term(generator, *SHAPE, 4, pristine.dtype, scale=0.2)] for _ in range(2)]


@pytest.mark.parametrize("place", [(0, 0), (63, 127), (64, 128), (129, 299), (100, 17)])
def test_one_changed_element(gpu, pristine, adapters, place):
    """Its tile keeps what it has; the others are undone, and done again by the step the other way round."""
    weight, record = pristine.clone(), Record(pristine)
    gpu.step([step(weight, new=(adapters[0], record))])
    bits = weight.view({2: torch.int16, 4: torch.int32}[weight.element_size()])
    bits[place] ^= 1
    assert gpu.step([step(weight, old=(adapters[0], record))]) == [FOREIGN]
    row, col = place[0] // 64 * 64, place[1] // 128 * 128
    assert record.foreign == 1 + row // 64 * 3 + col // 128
    wanted = pristine.clone()
    wanted[row : row + 64, col : col + 128] = fused(pristine, adapters[0])[row : row + 64, col : col + 128]
    wanted.view(bits.dtype)[place] ^= 1
    assert same_bits(weight, wanted)
    assert gpu.step([step(weight, new=(adapters[0], record))]) == [0]
    bits[place] ^= 1
    assert same_bits(weight, fused(pristine, adapters[0]))
    assert gpu.step([step(weight, old=(adapters[0], record))]) == [0]
    assert same_bits(weight, pristine)


def test_every_single_bit_counts(gpu, generator):
    """One tile, a change of one bit of one element each time."""
    pristine = random_tensor(generator, 64, 128, torch.bfloat16)
    terms = [random_term(generator, 64, 128, 1, scale=0.1)]
    weight, record = pristine.clone(), Record(pristine)
    gpu.step([step(weight, new=(terms, record))])
    bits = weight.view(torch.int16).view(-1)
    for at in torch.randperm(bits.numel(), generator=generator)[:160].tolist():
        change = -(1 << 15) if at % 16 == 15 else 1 << at % 16
        bits[at] ^= change
        assert gpu.step([step(weight, old=(terms, record))]) == [FOREIGN], at
        bits[at] ^= change
    assert gpu.step([step(weight, old=(terms, record))]) == [0]
    assert same_bits(weight, pristine)


def test_force_undoes_whatever_is_there(gpu, pristine, adapters):
    weight, record = pristine.clone(), Record(pristine)
    gpu.step([step(weight, new=(adapters[0], record))])
    weight[5, 7] = 2.0
    assert gpu.step([step(weight, old=(adapters[0], record))], force=True) == [0]
    differing = (weight != pristine).nonzero().tolist()
    assert differing in ([], [[5, 7]])
    assert record.states == [2]


@pytest.mark.parametrize("order", ORDERS)
def test_a_full_record(gpu, generator, pristine, adapters, order):
    """Of the tiles that find no room none is written; all come back, or go on with pristine values beside them."""
    weight, small = planted(pristine, generator), Record(pristine, capacity=3000)
    before = weight.clone()
    with gpu.order(order, seed=2):
        assert gpu.step([step(weight, new=(adapters[0], small))]) == [FULL]
    assert small.states == [0, 1]
    assert small.used <= 3000
    for entry, (row, col) in zip(small.entries, [(r, c) for r in (0, 64, 128) for c in (0, 128, 256)], strict=True):
        tile = slice(row, row + 64), slice(col, col + 128)
        wanted = before if entry["state"] == 0 else fused(before, adapters[0])
        assert same_bits(weight[tile], wanted[tile])
    assert gpu.step([step(weight, old=(adapters[0], small))]) == [0]
    assert same_bits(weight, before)


def test_a_full_record_in_a_switch(gpu, pristine, adapters):
    weight, first, small = pristine.clone(), Record(pristine), Record(pristine, capacity=0)
    gpu.step([step(weight, new=(adapters[0], first))])
    composed = weight.clone()
    assert gpu.step([step(weight, (adapters[0], first), (adapters[1], small))]) == [FULL]
    assert gpu.step([step(weight, (adapters[1], small), (adapters[0], first))]) == [0]
    assert same_bits(weight, composed)
    assert first.states == [1]
    backup, hashes = torch.empty_like(pristine), Record(pristine, corrections=False)
    assert gpu.step([step(weight, old=(adapters[0], first), out=backup)]) == [0]
    assert same_bits(backup, pristine)
    assert same_bits(weight, composed)
    assert first.states == [1]
    assert gpu.step([step(weight, (adapters[0], first), (adapters[1], hashes))]) == [0]
    assert same_bits(weight, fused(pristine, adapters[1]))
    assert gpu.step([step(weight, old=(adapters[1], hashes, backup))]) == [0]
    assert same_bits(weight, pristine)


def test_another_base(gpu, generator, pristine, adapters):
    """What is fused to need not be what comes back."""
    base = random_tensor(generator, *SHAPE, pristine.dtype)
    weight, record = pristine.clone(), Record(pristine, capacity=3 * pristine.nbytes)
    assert gpu.step([step(weight, new=(adapters[0], record, base))]) == [0]
    assert same_bits(weight, fused(base, adapters[0]))
    assert gpu.step([step(weight, old=(adapters[0], record))]) == [0]
    assert same_bits(weight, pristine)


def test_what_makes_no_sense(pristine, adapters, generator):
    record, other, hashes = Record(pristine), Record(pristine), Record(pristine, corrections=False)
    gained = random_term(generator, *SHAPE, 4)
    times_base = (*gained.as_tuple(), "base", None, 0.0)

    def table(weight, old=None, new=None, out=None):
        return _C.cuda_step_table([step(weight, old, new, out)])

    for arguments, message in [
        ({}, "neither old nor new terms"),
        ({"old": (adapters[0], hashes)}, "neither corrections nor pristine values"),
        ({"new": (adapters[0], record), "out": pristine}, "an out takes pristine values from old terms"),
    ]:
        with pytest.raises(ArgumentError, match=rf"\[step\] step 0: {message}"):
            table(pristine, **arguments)
    with pytest.raises(ArgumentError, match=r"\[step\] a record is used twice"):
        table(pristine, (adapters[0], record), (adapters[1], record))
    with pytest.raises(ArgumentError, match=r"\[step\] a record is used twice"):
        _C.cuda_step_table([step(pristine, new=(adapters[0], record))] * 2)
    with_base = (*step(pristine, new=(adapters[0], other))[1],)
    layer = ((*with_base[0][:9], [times_base]), *with_base[1:])
    with pytest.raises(ArgumentError, match="corrections for terms that need the base"):
        _C.cuda_step_table([(None, layer, None)])
    layer = (layer[0], False, hashes.address, 0, False)
    old = step(pristine, old=(adapters[0], record))[0]
    with pytest.raises(ArgumentError, match="new terms that need the base, and neither"):
        _C.cuda_step_table([(old, layer, None)])
    with pytest.raises(ArgumentError, match="old terms that need the base"):
        _C.cuda_step_table([((layer[0], False, other.address, 8, True), None, None)])
    with pytest.raises(ArgumentError, match="corrections of F64"):
        _C.cuda_record_layout(4, 4, "F64", 100)
    with pytest.raises(ArgumentError, match="negative size"):
        _C.cuda_record_layout(-4, 4, "F16", 100)
    with pytest.raises(ArgumentError, match="unknown dtype 'F17'"):
        _C.cuda_record_layout(4, 4, "F17", 100)


def test_empty_calls(gpu):
    assert gpu.step([]) == []
    empty = torch.zeros(0, 5, dtype=torch.float16)
    assert gpu.step([step(empty, new=([], Record(empty)))]) == [0]
