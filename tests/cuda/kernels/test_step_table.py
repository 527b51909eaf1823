"""Which kernel takes which step, and what its row says."""

import pytest
import torch
from emulated_steps import Record, step
from fusion_reference import Term, random_term
from term_kinds import AnyTerm, Matrix

from lora_mmap import _C

PAIRS, ANY, DOUBLE = "lora_mmap_step_pairs", "lora_mmap_step", "lora_mmap_step_f64"


def kernels(*steps):
    return [launch[0] for launch in _C.cuda_step_table(list(steps))[1]]


def pair(weight):
    rows, cols = weight.shape
    return Term(torch.ones(2, cols), torch.ones(rows, 2), 1.0)


def fresh(*shape, dtype=torch.float16):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("weight", "kernel"),
    [
        (fresh(70, 64), PAIRS),
        (fresh(70, 64, dtype=torch.bfloat16), PAIRS),
        (fresh(70, 64, dtype=torch.float32), PAIRS),
        (fresh(70, 64, dtype=torch.float64), DOUBLE),
        (fresh(70, 66), ANY),
        (fresh(70, 128)[:, ::2], ANY),
        (fresh(70, 128)[:, 4:68], PAIRS),
        (fresh(70, 128)[:, 1:65], ANY),
        (fresh(70, 66)[:, :64], ANY),
        (fresh(64, 70).t(), ANY),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{tuple(value.shape)}-{value.stride()}-{value.dtype}",
)
def test_how_the_weight_lies(weight, kernel):
    terms, record = [pair(weight)], Record(weight, corrections=weight.dtype != torch.float64)
    assert kernels(step(weight, new=(terms, record))) == [kernel]


def test_what_the_step_asks_for():
    weight, other = fresh(70, 64), fresh(70, 66)[:, :64]
    records = [Record(weight) for _ in range(2)]
    pairs, whole = [pair(weight)], [AnyTerm(Matrix(fresh(70, 64)), 0.5)]
    assert kernels(step(weight, (pairs, records[0]), (pairs, records[1]))) == [PAIRS]
    assert kernels(step(weight, (whole, records[0]), (pairs, records[1]))) == [ANY]
    assert kernels(step(weight, (pairs, records[0]), (whole, records[1]))) == [ANY]
    assert kernels(step(weight, (pairs, records[0], fresh(70, 64)))) == [PAIRS]
    assert kernels(step(weight, (pairs, records[0], other))) == [ANY]
    assert kernels(step(weight, new=(pairs, records[0], fresh(70, 64)))) == [ANY]
    assert kernels(step(weight, (pairs, records[0]), out=fresh(70, 64))) == [PAIRS]
    assert kernels(step(weight, (pairs, records[0]), out=other)) == [ANY]


def test_steps_of_a_kernel_share_a_launch(generator):
    weights = [fresh(70, 64), fresh(70, 66), fresh(7, 8, dtype=torch.float64), fresh(130, 260)]
    records = [Record(weight, corrections=weight.dtype != torch.float64) for weight in weights]
    terms = [[random_term(generator, *weight.shape, 3)] for weight in weights]
    steps = [step(w, new=(t, r)) for w, t, r in zip(weights, terms, records, strict=True)]
    _, launches = _C.cuda_step_table(steps)
    assert [(kernel, tiles, rows) for kernel, _, _, tiles, rows, _, _ in launches] == [
        (PAIRS, 2 + 3 * 3, 2),
        (ANY, 2, 1),
        (DOUBLE, 1, 1),
    ]
    assert [shared for _, _, shared, *_ in launches] == [45056, 32768, 32768]


def test_what_a_record_takes():
    assert _C.cuda_record_layout(130, 260, "BF16", 1001) == (9, 8 + 9 * 24, 1004)
    assert _C.cuda_record_layout(130, 260, "F64", 0) == (15, 8 + 15 * 24, 0)
    assert _C.cuda_record_layout(0, 260, "F16", 0) == (0, 8, 0)
