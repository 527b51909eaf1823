"""Bits of every step on every instruction set: any terms, values, strides and shapes."""

import pytest
import torch
from fusion_reference import BITS, Term, bits, expected, random_tensor, random_term, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from term_kinds import AnyTerm, Choice, Matrix, products, whole_matrices
from undo_steps import layer, record_of, step

from lora_mmap import _C

JOURNALS = [torch.float16, torch.bfloat16, torch.float32]
WIDTH = {2: 16, 4: 32}


def there_and_back(weight, terms, isa, threads=1):
    """The bytes of the record; the weight is fused, checked, undone and checked."""
    pristine = weight.clone()
    old = layer(terms, record_of(weight))
    wanted, overflow = expected(pristine, terms)
    overflowed, foreign = _C.step([step(weight, new=old)], threads, isa)
    assert (overflowed, foreign) == ([0] if overflow else [], [])
    new_nan = torch.isnan(wanted) & ~torch.isnan(pristine)  # an overflow: the contract names no payload
    assert torch.equal(torch.isnan(weight) & ~torch.isnan(pristine), new_nan)
    assert torch.equal(bits(weight)[~new_nan], bits(wanted)[~new_nan])
    nbytes = old[1].nbytes
    assert _C.step([step(weight, old)], threads, isa) == ([], [])
    assert same_bits(weight, pristine)
    return nbytes


def every_pattern(dtype, generator, rows, cols):
    """Random bits, among them every kind of value that the format has."""
    count = rows * cols
    words = torch.randint(-(2**31), 2**31, (count,), generator=generator, dtype=torch.int64)
    special = {
        torch.float16: [0x8000, 0, 1, 0x8001, 0x7C00, 0xFC00, 0x7C01, 0xFE55, 0x7FFF, 0x7BFF, 0x0400],
        torch.bfloat16: [0x8000, 0, 1, 0x8001, 0x7F80, 0xFF80, 0x7F81, 0xFFC5, 0x7FFF, 0x7F7F, 0x0080],
        torch.float32: [0x80000000, 0, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00055, 0x7FFFFFFF],
    }[dtype]
    words[: len(special)] = torch.tensor(special[:count])
    words = words[torch.randperm(count, generator=generator)].reshape(rows, cols)
    return words.to(BITS[dtype.itemsize]).view(dtype)


@pytest.mark.parametrize("dtype", JOURNALS)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.37, 3e4])
def test_any_bits_come_back(generator, isa, dtype, scale):
    weight = every_pattern(dtype, generator, 29, 75)
    there_and_back(weight, [random_term(generator, 29, 75, 3, scale=scale)], isa)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_factors_that_are_not_finite(generator, isa, dtype):
    weight = random_tensor(generator, 29, 75, dtype)
    term = random_term(generator, 29, 75, 3)
    term.down[1, 5], term.down[2, 9], term.up[3, 0] = float("inf"), float("nan"), -float("inf")
    there_and_back(weight, [term], isa)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_terms_of_every_kind(generator, isa, dtype):
    rows, cols = 31, 530
    kinds = [AnyTerm(m, 0.37) for _, m in whole_matrices(generator, rows, cols, torch.float16)]
    kinds += [AnyTerm(m, 0.37) for _, m in products(generator, rows, cols, 5, torch.bfloat16)]
    kinds += [AnyTerm(kinds[i].matrix, 0.5, kinds[-1 - i].matrix) for i in range(len(kinds))]
    for term in kinds:
        there_and_back(random_tensor(generator, rows, cols, dtype), [term], isa)
    there_and_back(random_tensor(generator, rows, cols, dtype), [kinds[0], kinds[13], kinds[20]], isa)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_ranks_of_several_blocks(generator, isa, dtype):
    terms = [random_term(generator, 14, 530, rank, scale=0.01) for rank in (150, 140)]
    there_and_back(random_tensor(generator, 14, 530, dtype), terms, isa)


@pytest.mark.parametrize("shape", [(1, 1), (1, 513), (23, 512), (25, 511), (49, 7), (400, 3), (700, 1), (13, 1025)])
@pytest.mark.parametrize("dtype", JOURNALS)
def test_odd_shapes(generator, isa, shape, dtype):
    there_and_back(random_tensor(generator, *shape, dtype), [random_term(generator, *shape, 2)], isa, 2)


def strided(name, weight):
    rows, cols = weight.shape
    wide = torch.zeros(2 * rows, 3 * cols, dtype=weight.dtype)
    views = {
        "transposed": torch.zeros(cols, rows, dtype=weight.dtype).t(),
        "spread": wide[::2, 1::3],
        "rows apart": wide[1::2, :cols],
        "unaligned": torch.zeros(rows * cols + 1, dtype=weight.dtype)[1:].view(rows, cols),
    }
    view = views[name]
    view.copy_(weight)
    return view


@pytest.mark.parametrize("dtype", JOURNALS)
@pytest.mark.parametrize("name", ["transposed", "spread", "rows apart", "unaligned"])
def test_strides(generator, isa, dtype, name):
    weight = strided(name, random_tensor(generator, 30, 530, dtype))
    there_and_back(weight, [random_term(generator, 30, 530, 2)], isa)


def test_rows_backwards(generator, isa):
    weight = random_tensor(generator, 30, 530, torch.float16)
    flipped = weight.flip(0)
    term = random_term(generator, 30, 530, 2)
    record = _C.Record(30, 530, "F16", True)
    last = weight.data_ptr() + 29 * weight.stride(0) * 2
    backwards = (last, 30, 530, -weight.stride(0), 1, "F16")
    _C.step([(*backwards, None, layer([term], record), None)], 1, isa)
    assert same_bits(weight.flip(0), expected(flipped, [term])[0])
    _C.step([(*backwards, layer([term], record), None, None)], 1, isa)
    assert same_bits(weight.flip(0), flipped)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_a_column_of_whole_values(generator, isa, dtype):
    """Tiles of a bias are those of a row; whoever wrote to it is found where it stands in the column."""
    weight = random_tensor(generator, 1300, 1, dtype)
    term = AnyTerm(Matrix(random_tensor(generator, 1300, 1, torch.float16)), 0.5)
    there_and_back(weight, [term], isa)
    old = layer([term], record_of(weight))
    _C.step([step(weight, new=old)], 1, isa)
    bits(weight)[1100] ^= 1
    assert _C.step([step(weight, old)], 1, isa) == ([], [(0, 1024, 0)])


@pytest.mark.parametrize("dtype", JOURNALS)
def test_new_terms_that_need_the_base(generator, isa, dtype):
    """After a journal: the base is what came out of it."""
    weight = random_tensor(generator, 30, 530, dtype)
    pristine = weight.clone()
    choice = Choice(generator)
    gained = AnyTerm(choice.matrix(30, 530), 0.4, None, choice.gain(30, 530, dtype), 0.7)
    times_base = AnyTerm(choice.matrix(30, 530), 0.4, "base")
    plain = random_term(generator, 30, 530, 3)
    old = layer([plain], record_of(weight))
    new = layer([gained, times_base], record_of(weight, corrections=False), pristine)
    new_on_w0 = (*new[:2], 0, 0, 0)
    _C.step([step(weight, new=old)], 1, isa)
    _C.step([step(weight, old, new_on_w0)], 1, isa)
    assert same_bits(weight, expected(pristine, [gained, times_base])[0])
    _C.step([step(weight, new)], 1, isa)
    assert same_bits(weight, pristine)


@pytest.mark.parametrize("dtype", JOURNALS)
def test_a_base_that_is_not_the_pristine_value(generator, isa, dtype):
    weight, base = (random_tensor(generator, 30, 530, dtype) for _ in range(2))
    pristine = weight.clone()
    for terms in ([], [random_term(generator, 30, 530, 3)]):
        record = record_of(weight)
        _C.step([step(weight, new=layer(terms, record, base))], 1, isa)
        assert same_bits(weight, expected(base, terms)[0] if terms else base)
        _C.step([step(weight, old=layer(terms, record))], 1, isa)
        assert same_bits(weight, pristine)


@pytest.mark.parametrize("dtype", JOURNALS)
@pytest.mark.parametrize("relative", [1e-3, 1e-2, 1e-1, 1.0])
def test_records_do_not_depend_on_the_instruction_set(generator, dtype, relative):
    rows, cols, rank = 96, 1536, 4
    pristine = random_tensor(generator, rows, cols, dtype, 0.02)
    down, up = random_tensor(generator, rank, cols, torch.float16), random_tensor(generator, rows, rank, torch.float16)
    term = Term(down, up, relative * 0.02 / rank**0.5)
    sizes = {there_and_back(pristine.clone(), [term], isa, threads) for isa in _C.isas() for threads in (1, 3)}
    assert len(sizes) == 1
    most = {
        torch.float16: {1e-3: 0.12, 1e-2: 0.375, 1e-1: 1.95, 1.0: 7.2},
        torch.bfloat16: {1e-3: 0.15, 1e-2: 0.48, 1e-1: 2.7, 1.0: 11.0},
        torch.float32: {1e-3: 0.15, 1e-2: 0.48, 1e-1: 2.7, 1.0: 13.0},
    }
    empty = record_of(pristine).nbytes
    assert (sizes.pop() - empty) * 8 / (rows * cols) <= most[dtype][relative]


def with_ties(dtype, generator, rows, cols):
    """Weights a few units in the last place above 1 or below -1, zeros of both signs, and sums of half such units:
    what comes of either, and what it leaves when the sum is subtracted, lies halfway between two weights."""
    unit = torch.finfo(dtype).eps
    weight = (1 + unit * torch.randint(0, 6, (rows, cols), generator=generator)).to(dtype)
    weight *= torch.randint(-1, 2, (rows, cols), generator=generator)
    weight[:, ::7] = -0.0
    down = torch.randint(-2, 3, (1, cols), generator=generator).to(torch.float16)
    term = Term(down, torch.ones(rows, 1, dtype=torch.float16), unit / 2)
    fused, _ = expected(weight, [term])
    left = fused.double() - down * (unit / 2)
    assert ((left / unit) % 1 == 0.5).any()
    return weight, [term]


@pytest.mark.parametrize("dtype", JOURNALS)
@pytest.mark.parametrize("made", ["patterns", "ties"])
def test_what_one_instruction_set_recorded_another_undoes(generator, dtype, made):
    rows, cols = 29, 96
    if made == "ties":
        pristine, terms = with_ties(dtype, generator, rows, cols)
    else:
        pristine, terms = every_pattern(dtype, generator, rows, cols), [random_term(generator, rows, cols, 3)]
    for recording in _C.isas():
        for undoing in _C.isas():
            weight = pristine.clone()
            old = layer(terms, record_of(weight))
            assert _C.step([step(weight, new=old)], 1, recording)[1] == []
            assert not same_bits(weight, pristine)
            assert _C.step([step(weight, old)], 1, undoing) == ([], [])
            assert same_bits(weight, pristine)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_weight_and_any_base_round_trip(data):
    """No terms between two arbitrary rows of bits: the record holds the whole difference."""
    dtype = data.draw(st.sampled_from(JOURNALS))
    count = data.draw(st.integers(1, 700))
    values = st.integers(-(2 ** (WIDTH[dtype.itemsize] - 1)), 2 ** (WIDTH[dtype.itemsize] - 1) - 1)
    base = torch.tensor(data.draw(st.lists(values, min_size=count, max_size=count)), dtype=BITS[dtype.itemsize])
    changes = data.draw(st.dictionaries(st.integers(0, count - 1), values, max_size=count))
    weight = base.clone()
    for at, value in changes.items():
        weight[at] = value if data.draw(st.booleans()) else int(base[at]) ^ 1
    weight, base = (tensor.view(dtype).reshape(1, count) for tensor in (weight, base))
    pristine = weight.clone()
    record = record_of(weight)
    _C.step([step(weight, new=layer([], record, base))], 1)
    assert same_bits(weight, base)
    _C.step([step(weight, layer([], record))], 1)
    assert same_bits(weight, pristine)
