"""Fused, undone, switched and rolled back: the bits of every weight on every instruction set."""

import pytest
import torch
from fusion_reference import WEIGHTS, expected, random_tensor, random_term, same_bits
from undo_steps import layer, record_of, step

from lora_mmap import _C

JOURNALS = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", JOURNALS)
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (50, 1100), (3, 600)])
def test_there_and_back(generator, isa, dtype, shape):
    weight = random_tensor(generator, *shape, dtype)
    pristine = weight.clone()
    terms = [random_term(generator, *shape, rank) for rank in (5, 3)]
    record = record_of(weight)
    assert _C.step([step(weight, new=layer(terms, record))], 2, isa) == ([], [])
    assert same_bits(weight, expected(pristine, terms)[0])
    assert record.written == record.tiles
    assert _C.step([step(weight, old=layer(terms, record))], 2, isa) == ([], [])
    assert same_bits(weight, pristine)
    assert record.written == 0


@pytest.mark.parametrize("dtype", JOURNALS)
def test_a_switch_and_its_rollback(generator, isa, dtype):
    weight = random_tensor(generator, 61, 700, dtype)
    pristine = weight.clone()
    one, other = ([random_term(generator, 61, 700, rank)] for rank in (4, 9))
    old, new = layer(one, record_of(weight)), layer(other, record_of(weight))
    _C.step([step(weight, new=old)], 1, isa)
    _C.step([step(weight, old, new)], 2, isa)
    assert same_bits(weight, expected(pristine, other)[0])
    _C.step([step(weight, new, old)], 2, isa)
    assert same_bits(weight, expected(pristine, one)[0])
    _C.step([step(weight, old, new)], 1, isa)
    _C.step([step(weight, new)], 2, isa)
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_pristine_values_that_stand_elsewhere(generator, isa, dtype):
    weight = random_tensor(generator, 30, 520, dtype)
    pristine = weight.clone()
    terms = [random_term(generator, 30, 520, 3)]
    record = record_of(weight, corrections=False)
    _C.step([step(weight, new=layer(terms, record))], 1, isa)
    assert same_bits(weight, expected(pristine, terms)[0])
    _C.step([step(weight, old=layer(terms, record, pristine))], 1, isa)
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_an_out_takes_the_pristine_values(generator, isa, dtype):
    weight = random_tensor(generator, 30, 520, dtype)
    pristine, out = weight.clone(), torch.zeros_like(weight)
    terms = [random_term(generator, 30, 520, 3)]
    old = layer(terms, record_of(weight))
    _C.step([step(weight, new=old)], 1, isa)
    fused = weight.clone()
    assert _C.step([step(weight, old, out=out)], 1, isa) == ([], [])
    assert same_bits(out, pristine)
    assert same_bits(weight, fused)
    assert old[1].written == old[1].tiles


def test_no_terms_leave_the_bits(isa):
    weight = torch.tensor([[-0.0, float("nan"), 1.0]])
    pristine = weight.clone()
    record = record_of(weight)
    _C.step([step(weight, new=layer([], record))], 1, isa)
    assert same_bits(weight, pristine)
    _C.step([step(weight, old=layer([], record))], 1, isa)
    assert same_bits(weight, pristine)
