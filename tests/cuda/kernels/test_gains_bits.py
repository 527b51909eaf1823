"""DoRA's factors on the GPU's kernels: the bits of the CPU's scalar kernel."""

import copy

import pytest
import torch
from emulator import ORDERS
from fusion_reference import FACTORS, NAMES, WEIGHTS, random_tensor, random_term
from term_kinds import AnyTerm, Choice, Matrix, Norms, folded, products

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def check(gpu, norms, grid=3):
    wanted = [copy.copy(n) for n in norms]
    for each in wanted:
        each.out = torch.ones_like(each.out)
    flagged = _C.gains([n.as_tuple() for n in wanted], 1, "scalar")
    assert gpu.gains([n.as_tuple() for n in norms], grid) == flagged
    for ours, theirs in zip(norms, wanted, strict=True):
        finite = torch.isfinite(theirs.out)
        assert torch.equal(torch.isfinite(ours.out), finite)
        assert torch.equal(ours.out[finite].view(torch.int32), theirs.out[finite].view(torch.int32))
    return flagged


def norms_of(choice, rows, cols, weight):
    base = random_tensor(choice.generator, rows, cols, weight)
    if choice.below(2):
        base = base.t().contiguous().t()
    times = choice.matrix(rows, cols) if choice.below(2) else None
    term = AnyTerm(choice.matrix(rows, cols), 0.37, times)
    by_columns, other = bool(choice.below(2)), choice.below(2)
    count, groups, magnitude_map = (cols if by_columns else rows), None, None
    if by_columns and other:
        count = 5
        groups = torch.randint(0, 5, (cols,), generator=choice.generator).to(torch.int32)
    size = count
    if not by_columns and other:
        size, magnitude_map = count + 4, torch.randperm(count, generator=choice.generator).to(torch.int32)
    magnitude = random_tensor(choice.generator, 1, size, choice.of(FACTORS))
    return Norms(base, term, by_columns, magnitude, groups, magnitude_map)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("seed", range(3))
def test_any_term(gpu, weight, seed):
    choice = Choice(torch.Generator().manual_seed(seed))
    sizes = [1, 5, 15, 63, 65, 130, 300]
    assert check(gpu, [norms_of(choice, choice.of(sizes), choice.of(sizes), weight) for _ in range(5)]) == []


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [1, 1000])
def test_many_jobs_in_any_order_of_threads(gpu, generator, order, grid):
    choice = Choice(generator)
    norms = [norms_of(choice, 1 + 29 * i % 140, 1 + 61 * i % 280, WEIGHTS[i % 4]) for i in range(10)]
    with gpu.order(order, seed=grid):
        assert check(gpu, norms, grid) == []


def test_input_channels_of_convolutions(gpu, generator):
    """[out, in * kernel] and, in channels_last, [out, kernel * in]; more groups than a block has threads."""
    norms = []
    for cols, kernel in ((36, 9), (1200, 4)):
        channels = cols // kernel
        for groups in (folded(cols, kernel, channels), folded(cols, 1, channels)):
            term = AnyTerm(next(products(generator, 70, cols, 3, torch.float16))[1], 0.5)
            magnitude = random_tensor(generator, 1, channels, torch.bfloat16)
            norms.append(Norms(random_tensor(generator, 70, cols, torch.float16), term, True, magnitude, groups))
    assert check(gpu, norms) == []


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_a_sum_of_zero_gives_zero(gpu, generator, weight):
    base = random_tensor(generator, 5, 19, weight)
    base[2] = 0
    term = random_term(generator, 5, 19, 2)
    term.up[2] = 0
    norms = Norms(base, term, False, torch.ones(1, 5))
    assert check(gpu, [norms]) == []
    assert norms.out[2] == 0
    for shape, by_columns in [((0, 4), True), ((4, 0), False), ((0, 4), False)]:
        count = shape[1] if by_columns else shape[0]
        term = random_term(generator, *shape, 2)
        norms = Norms(torch.zeros(shape, dtype=weight), term, by_columns, torch.ones(1, count))
        assert check(gpu, [norms]) == []
        assert norms.out.count_nonzero() == 0


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("by_columns", [False, True])
def test_what_is_not_finite_is_reported(gpu, generator, weight, value, by_columns):
    norms = []
    for place in ("nothing", "base", "down", "magnitude", "grouped"):
        base, term = random_tensor(generator, 6, 20, weight), random_term(generator, 6, 20, 2, torch.float32)
        groups = folded(20, 5, 4) if place == "grouped" and by_columns else None
        magnitude = random_tensor(generator, 1, 4 if groups is not None else 20 if by_columns else 6, torch.float32)
        spoiled = {"base": base, "grouped": base, "down": term.down, "magnitude": magnitude}
        spoiled.get(place, torch.zeros(1, 4))[0, 3] = value
        norms.append(Norms(base, term, by_columns, magnitude, groups))
    assert check(gpu, norms) == [1, 2, 3, 4]


def test_misaligned_magnitudes(gpu, generator):
    for dtype in FACTORS:
        values = random_tensor(generator, 1, 9, dtype)
        raw = torch.zeros(values.nbytes + 1, dtype=torch.uint8)
        raw[1:] = values.view(torch.uint8).flatten()
        results = []
        for run in (gpu.gains, lambda jobs: _C.gains(jobs, 1, "scalar")):
            whole = AnyTerm(Matrix(torch.zeros(9, 4)), 1.0)
            norms = Norms(torch.ones(9, 4), whole, False, values)
            given = norms.as_tuple()
            assert run([(*given[:4], raw.data_ptr() + 1, *given[5:])]) == []
            results.append(norms.out)
        assert torch.equal(*results)


def test_nonsense_is_refused(gpu, generator):
    good = Norms(torch.ones(4, 8), random_term(generator, 4, 8, 2), False, torch.ones(1, 4)).as_tuple()
    for bad, message in [
        ((*good[:3], 5, *good[4:]), "n_groups is 5, expected 4"),
        ((*good[:7], 0), "null pointer"),
        (((*good[0][:2], 2**31, *good[0][3:]), *good[1:3], 2**31, *good[4:]), "less than 2\\^31"),
    ]:
        with pytest.raises(ArgumentError, match=rf"job 1: .*{message}"):
            gpu.gains([good, bad])
