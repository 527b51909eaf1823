"""Steps with terms of every kind: additive ones undo themselves, the others take pristine values."""

import pytest
import torch
from emulated_steps import Record, step
from fusion_reference import NAMES, WEIGHTS, job, random_tensor, same_bits
from term_kinds import AnyTerm, Choice, Matrix, products, whole_matrices

from lora_mmap import _C


def fused(weight, terms, base=None):
    wanted = weight.clone()
    assert _C.fuse([job(wanted, terms, base)], 1, "scalar") == []
    return wanted


@pytest.mark.parametrize("weight", WEIGHTS[:3], ids=NAMES.get)
def test_additive_terms_undo_themselves(gpu, generator, weight):
    rows, cols = 70, 150
    other = Matrix(random_tensor(generator, rows, cols, torch.bfloat16))
    for _, matrix in [
        *products(generator, rows, cols, 5, torch.float16),
        *whole_matrices(generator, rows, cols, torch.float32),
    ]:
        terms = [AnyTerm(matrix, 0.37), AnyTerm(matrix, 0.1, other)]
        pristine = random_tensor(generator, rows, cols, weight)
        fresh, record = pristine.clone(), Record(pristine, capacity=3 * pristine.nbytes)
        assert gpu.step([step(fresh, new=(terms, record))]) == [0]
        assert same_bits(fresh, fused(pristine, terms))
        assert gpu.step([step(fresh, old=(terms, record))]) == [0]
        assert same_bits(fresh, pristine)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("seed", range(3))
def test_any_terms_beside_pristine_values(gpu, weight, seed):
    """From pristine to one set of terms, to another, and back."""
    choice = Choice(torch.Generator().manual_seed(seed))
    rows, cols = choice.of([1, 63, 64, 67, 131]), choice.of([1, 8, 65, 128, 261])
    pristine = random_tensor(choice.generator, rows, cols, weight)
    sets = [[choice.term(rows, cols, weight) for _ in range(1 + choice.below(3))] for _ in range(2)]
    records = [Record(pristine, corrections=False) for _ in range(2)]
    held, backup = pristine.clone(), pristine.clone()
    assert gpu.step([step(held, new=(sets[0], records[0]))]) == [0]
    assert same_bits(held, fused(torch.zeros_like(pristine), sets[0], pristine))
    assert gpu.step([step(held, (sets[0], records[0], backup), (sets[1], records[1]))]) == [0]
    assert same_bits(held, fused(torch.zeros_like(pristine), sets[1], pristine))
    assert [record.states for record in records] == [[2], [1]]
    assert gpu.step([step(held, (sets[1], records[1], backup))]) == [0]
    assert same_bits(held, pristine)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_a_changed_element_beside_pristine_values(gpu, generator, weight):
    from emulated_steps import FOREIGN

    pristine = random_tensor(generator, 70, 150, weight)
    held, record = pristine.clone(), Record(pristine, corrections=False)
    gpu.step([step(held, new=([], record))])
    assert same_bits(held, pristine)
    held.view(torch.uint8)[69, -1] ^= 1
    assert gpu.step([step(held, old=([], record, pristine))]) == [FOREIGN]
    assert not same_bits(held, pristine)
    assert gpu.step([step(held, old=([], record, pristine))], force=True) == [0]
    assert same_bits(held, pristine)
