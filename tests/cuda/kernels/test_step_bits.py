"""Steps give the bits of a fusion from pristine values, and those values back, whatever stands in the weight."""

import random

import pytest
import torch
from emulated_steps import OVERFLOW, Record, planted, step
from emulator import ORDERS
from fusion_reference import NAMES, Term, job, random_tensor, random_term, same_bits

from lora_mmap import _C

KINDS = [torch.float16, torch.bfloat16, torch.float32]
SHAPES = [(1, 1), (1, 4), (7, 1), (64, 128), (65, 129), (130, 260)]


def fused(weight, terms):
    """As the CPU does it."""
    wanted = weight.clone()
    overflowed = _C.fuse([job(wanted, terms)], 1)
    return wanted, OVERFLOW if overflowed else 0


@pytest.mark.parametrize("kind", KINDS, ids=NAMES.get)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0])
def test_fused_and_undone(gpu, generator, kind, shape, scale):
    pristine = random_tensor(generator, *shape, kind, 0.02)
    terms = [random_term(generator, *shape, 5, kind, scale=0.02 * scale) for _ in range(2)]
    weight, record = pristine.clone(), Record(pristine)
    assert gpu.step([step(weight, new=(terms, record))]) == [0]
    assert same_bits(weight, fused(pristine, terms)[0])
    assert record.states == [1]
    assert gpu.step([step(weight, old=(terms, record))]) == [0]
    assert same_bits(weight, pristine)
    assert record.states == [2]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES.get)
@pytest.mark.parametrize("scale", [1e-30, 0.1, 1e4])
def test_what_is_hard_to_bring_back(gpu, generator, kind, scale):
    """Overflowing results are written and undone as others."""
    pristine = planted(random_tensor(generator, 70, 140, kind), generator)
    terms = [random_term(generator, 70, 140, 3, torch.float32, scale=scale)]
    weight, record = pristine.clone(), Record(pristine, capacity=4 * pristine.nbytes)
    wanted, flags = fused(pristine, terms)
    assert gpu.step([step(weight, new=(terms, record))]) == [flags]
    finite = torch.isfinite(wanted)
    assert torch.equal(finite, torch.isfinite(weight))
    assert same_bits(weight[finite][None], wanted[finite][None])
    assert same_bits(weight[~torch.isfinite(pristine)][None], pristine[~torch.isfinite(pristine)][None])
    assert gpu.step([step(weight, old=(terms, record))]) == [0]
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES.get)
def test_every_value_there_is(gpu, generator, kind):
    """All bit patterns of the 16-bit types, and many of fp32, against sums of every size."""
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32)
    pristine = (every.to(torch.int16) if kind.itemsize == 2 else every * 65536 + every).view(kind).reshape(64, 1024)
    finest = torch.logspace(-8, 5, 1024).reshape(1, 1024)
    terms = [Term(finest, torch.linspace(-1, 1, 64).reshape(64, 1), 1.0)]
    weight, record = pristine.clone(), Record(pristine, capacity=4 * pristine.nbytes)
    gpu.step([step(weight, new=(terms, record))])
    assert not same_bits(weight, pristine)
    assert gpu.step([step(weight, old=(terms, record))]) == [0]
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES.get)
def test_no_terms_are_not_even_a_zero(gpu, kind):
    pristine = torch.tensor([[-0.0, 0.0, 1.5, float("nan")]], dtype=kind)
    weight, record = pristine.clone(), Record(pristine)
    assert gpu.step([step(weight, new=([], record))]) == [0]
    assert same_bits(weight, pristine)
    assert gpu.step([step(weight, old=([], record))]) == [0]
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [1, 5])
def test_a_walk_between_adapters(gpu, generator, order, grid):
    """Any way from adapters to others, and back by the same records, gives the bits of the way from the start."""
    choice = random.Random(grid)
    shapes = [(30, 200), (129, 64), (1, 300)]
    pristine = [planted(random_tensor(generator, *s, k), generator) for s, k in zip(shapes, KINDS, strict=True)]
    adapters = [
        [[random_term(generator, *s, 2 + i, k, scale=0.05 * (i + 1))] for i in range(3)]
        for s, k in zip(shapes, KINDS, strict=True)
    ]
    records = [[Record(p, capacity=4 * p.nbytes) for _ in range(3)] for p in pristine]
    weights, now = [p.clone() for p in pristine], [None] * 3
    with gpu.order(order, seed=grid):
        for _ in range(8):
            wanted = [choice.choice([i for i in (None, 0, 1, 2) if i != now[w]]) for w in range(3)]
            layers = [
                [None if i is None else (adapters[w][i], records[w][i]) for i in (now[w], wanted[w])] for w in range(3)
            ]
            flags = gpu.step([step(weights[w], *layers[w]) for w in range(3)], grid)
            assert all(flag in (0, OVERFLOW) for flag in flags)
            now = wanted
            for w in range(3):
                expected = pristine[w] if now[w] is None else fused(pristine[w], adapters[w][now[w]])[0]
                finite = torch.isfinite(expected) | ~torch.isfinite(pristine[w])
                assert same_bits(weights[w][finite][None], expected[finite][None])
    used = [[record.used for record in each] for each in records]
    layers = [(None if now[w] is None else (adapters[w][now[w]], records[w][now[w]])) for w in range(3)]
    gpu.step([step(weights[w], old=layers[w]) for w in range(3) if layers[w]])
    assert all(same_bits(w, p) for w, p in zip(weights, pristine, strict=True))
    assert used == [[record.used for record in each] for each in records]


@pytest.mark.parametrize("form", ["transposed", "strided", "backwards", "misaligned"])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES.get)
def test_weights_that_lie_anyhow(gpu, generator, kind, form):
    memory = random_tensor(generator, 150, 300, kind)
    rows = {
        "transposed": lambda: memory.t()[:200, :100],
        "strided": lambda: memory[::2, ::3],
        "misaligned": lambda: memory.view(-1)[1 : 1 + 99 * 201].view(99, 201),
        "backwards": lambda: memory[:70, :140],
    }
    weight = rows[form]()
    terms = [random_term(generator, *weight.shape, 4, kind, scale=0.3)]
    before, record = memory.clone(), Record(weight)
    wanted, _ = fused(weight.contiguous(), terms)
    native = step(weight, new=(terms, record)), step(weight, old=(terms, record))
    if form == "backwards":
        native = [(*(layer and backwards(layer, weight) for layer in each[:2]), None) for each in native]
        wanted = fused(weight.flip(0).contiguous(), terms)[0].flip(0)
    assert gpu.step([native[0]]) == [0]
    assert same_bits(weight.contiguous(), wanted)
    assert gpu.step([native[1]]) == [0]
    assert same_bits(memory, before)


def backwards(layer, weight):
    """The layer, its weight from the last row to the first."""
    job, *rest = layer
    last = weight[-1].data_ptr()
    return ((last, last, *job[2:4], -job[4], job[5], -job[6], *job[7:]), *rest)
