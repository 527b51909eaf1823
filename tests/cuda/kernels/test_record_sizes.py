"""What corrections take, against 1.5 times the figures of a simple coder in bits per element."""

import pytest
import torch
from emulated_steps import Record, step
from fusion_reference import NAMES, Term, same_bits

SIDE = 512
# ||delta|| / ||W||: bits per element of fp16, bf16 that a simple block coder takes.
SIMPLE = {1e-3: (0.08, 0.10), 1e-2: (0.25, 0.32), 1e-1: (1.3, 1.8), 1: (4.8, 7.4)}


@pytest.fixture(scope="module")
def drawn():
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(16, SIDE, generator=generator), torch.randn(SIDE, 16, generator=generator)
    return torch.randn(SIDE, SIDE, generator=generator) * 0.02, down, up


def record_of(gpu, drawn, kind, ratio):
    values, down, up = drawn
    pristine = values.to(kind)
    terms = [Term(down, up, float(ratio * values.norm() / (up @ down).norm()))]
    weight, record = pristine.clone(), Record(pristine, capacity=4 * pristine.nbytes)
    assert gpu.step([step(weight, new=(terms, record))]) == [0]
    assert gpu.step([step(weight, old=(terms, record))]) == [0]
    assert same_bits(weight, pristine)
    return record


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=NAMES.get)
@pytest.mark.parametrize("ratio", SIMPLE)
def test_bits_per_element(gpu, drawn, kind, ratio):
    record = record_of(gpu, drawn, kind, ratio)
    assert 8 * record.nbytes / SIDE**2 <= 1.5 * SIMPLE[ratio][kind == torch.bfloat16]


@pytest.mark.parametrize("ratio", [1e-3, 1e-2, 1e-1])
def test_an_eighth_of_the_weight_is_enough(gpu, drawn, ratio):
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        record = record_of(gpu, drawn, kind, ratio)
        assert record.used <= SIDE**2 * kind.itemsize / 8
