"""DoRA's factors: the bits of the contract for any term, tile, number of threads and kernel."""

import pytest
import torch
from fusion_reference import FACTORS, NAMES, WEIGHTS, job, random_tensor, random_term
from term_kinds import AnyTerm, Choice, Matrix, Norms, folded, products

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def change_of(choice, rows, cols):
    times = choice.matrix(rows, cols) if choice.below(2) else None
    return AnyTerm(choice.matrix(rows, cols), 0.37, times)


def norms_of(choice, rows, cols, weight):
    base = random_tensor(choice.generator, rows, cols, weight)
    if choice.below(2):
        base = base.t().contiguous().t()
    term = change_of(choice, rows, cols)
    kind = choice.below(4)
    count, groups, magnitude_map = (rows if kind < 2 else cols), None, None
    if kind == 3:
        count = 5
        groups = torch.randint(0, 5, (cols,), generator=choice.generator).to(torch.int32)
    size = count
    if kind == 1:
        size, magnitude_map = count + 4, torch.randperm(count, generator=choice.generator).to(torch.int32)
    magnitude = random_tensor(choice.generator, 1, size, choice.of(FACTORS))
    return Norms(base, term, kind >= 2, magnitude, groups, magnitude_map)


def assert_gains(norms, isa, threads=1, **options):
    wanted = [n.expected() for n in norms]
    assert all(finite for _, finite in wanted)
    assert _C.gains([n.as_tuple() for n in norms], threads, isa, **options) == []
    for n, (values, _) in zip(norms, wanted, strict=True):
        assert torch.equal(n.out.view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("seed", range(6))
def test_any_term(isa, weight, seed):
    choice = Choice(torch.Generator().manual_seed(seed))
    sizes = [1, 5, 7, 13] if weight == torch.float64 else [1, 5, 13, 40, 131]
    assert_gains([norms_of(choice, choice.of(sizes), choice.of(sizes), weight) for _ in range(5)], isa, 2)


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("dtype", WEIGHTS[:3], ids=NAMES.get)
def test_tile_sizes_and_threads(isa, generator, dtype, by_columns):
    rows, cols = 130, 600
    base, term = random_tensor(generator, rows, cols, dtype), random_term(generator, rows, cols, 9)
    magnitude = random_tensor(generator, 1, cols if by_columns else rows, torch.float32)
    norms = Norms(base, term, by_columns, magnitude)
    for threads, scratch_nbytes in [(1, 0), (2, 300_000), (5, 1 << 20), (1, 1 << 24), (200, 1 << 24)]:
        norms.out.fill_(-1)
        assert_gains([norms], isa, threads, scratch_nbytes=scratch_nbytes)


def test_input_channels_of_convolutions(isa, generator):
    """[out, in * kernel] and, in channels_last, [out, kernel * in]; more column sums than one batch takes."""
    norms = []
    for groups in (folded(36, 9, 4), folded(36, 1, 4)):
        term = AnyTerm(next(products(generator, 8, 36, 3, torch.float16))[1], 0.5)
        magnitude = random_tensor(generator, 1, 4, torch.bfloat16)
        norms.append(Norms(random_tensor(generator, 8, 36, torch.float16), term, True, magnitude, groups))
    wide = 1 + (1 << 19)
    for cols in (wide, 3):
        whole = AnyTerm(Matrix(random_tensor(generator, 1, cols, torch.float16)), 1.0)
        base, magnitude = random_tensor(generator, 1, cols, torch.float16), torch.ones(1, 1)
        norms.append(Norms(base, whole, True, magnitude, torch.zeros(cols, dtype=torch.int32)))
    assert_gains(norms, isa, 3)


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_a_sum_of_zero_gives_zero(isa, generator, weight):
    base = random_tensor(generator, 5, 19, weight)
    base[2] = 0
    term = random_term(generator, 5, 19, 2)
    term.up[2] = 0
    norms = Norms(base, term, False, torch.ones(1, 5))
    assert_gains([norms], isa)
    assert norms.out[2] == 0
    for shape, by_columns in [((0, 4), True), ((4, 0), False), ((0, 4), False)]:
        count = shape[1] if by_columns else shape[0]
        norms = Norms(
            torch.zeros(shape, dtype=weight), random_term(generator, *shape, 2), by_columns, torch.ones(1, count)
        )
        assert _C.gains([norms.as_tuple()], 2, isa) == []
        assert norms.out.count_nonzero() == 0


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("by_columns", [False, True])
def test_what_is_not_finite_is_reported(isa, generator, weight, value, by_columns):
    """A weight, a factor, a magnitude; also in a group of columns. An infinite norm alone would give a gain of 0."""
    norms = []
    for place in ("nothing", "base", "down", "up", "magnitude", "grouped"):
        base, term = random_tensor(generator, 6, 20, weight), random_term(generator, 6, 20, 2, torch.float32)
        groups = folded(20, 5, 4) if place == "grouped" and by_columns else None
        magnitude = random_tensor(generator, 1, 4 if groups is not None else 20 if by_columns else 6, torch.float32)
        {"base": base, "grouped": base, "down": term.down, "up": term.up, "magnitude": magnitude}.get(
            place, torch.zeros(1, 4)
        )[0, 3 if place != "up" else 1] = value
        norms.append(Norms(base, term, by_columns, magnitude, groups))
    assert [n.expected()[1] for n in norms] == [True] + [False] * 5
    assert _C.gains([n.as_tuple() for n in norms], 2, isa) == [1, 2, 3, 4, 5]


def test_nonsense_is_refused(generator):
    base, term = random_tensor(generator, 4, 8, torch.float16), random_term(generator, 4, 8, 2)
    gain = Matrix(torch.ones(4, 1).as_strided((4, 8), (1, 0)))
    good = Norms(base, term, False, torch.ones(1, 4)).as_tuple()
    product = Matrix(term.down, term.up)
    bad = [
        (good[:-1], "tuple of 8"),
        ((*good[:3], 5, *good[4:]), "n_groups is 5, expected 4"),
        ((*good[:4], 0, *good[5:]), "null pointer"),
        ((*good[:7], 0), "null pointer"),
        ((*good[:5], "I8", *good[6:]), "magnitude of type I8"),
        ((job(base, []), *good[1:]), "0 terms, expected 1"),
        ((job(base, [AnyTerm(product, 1.0, "base")]), *good[1:]), "times the base"),
        ((job(base, [AnyTerm(product, 1.0, None, gain)]), *good[1:]), "with a gain"),
    ]
    groups = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2], dtype=torch.int32)
    bad.append(((good[0], True, groups.data_ptr(), 4, *good[4:]), "column 4 in group 4 of 4"))
    bad.append(((good[0], False, groups.data_ptr(), 5, *good[4:]), "groups of rows"))
    for one, message in bad:
        with pytest.raises(ArgumentError, match=rf"\[gains\] .*{message}"):
            _C.gains([good, one], 1)
    with pytest.raises(ArgumentError, match=r"\[gains\] threads"):
        _C.gains([], 0)
