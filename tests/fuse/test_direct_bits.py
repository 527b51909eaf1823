"""A whole matrix alone, which the packed kernels add in a single pass: the contract, wherever the columns
of a row fall on the steps of that pass."""

import pytest
import torch
from fusion_reference import EDGE_OF_FP16, NAMES, WEIGHTS, bits, expected, job, random_tensor, same_bits
from term_kinds import AnyTerm, Matrix, folded
from test_fuse_non_finite import special

from lora_mmap import _C

WIDTHS = [*range(1, 18), *range(31, 36), *range(63, 68), 79, 127, 128, 129, 191]
# The first column, then one in a whole step, in a register pair after it and in the tail, of each weight type.
COLS = 135
PLACES = [0, 31, 33, 70, 127, 129, 134]
FLOATS = [torch.float16, torch.bfloat16, torch.float32]
HALVES = [torch.float16, torch.bfloat16]
SCALES = {None: 0.37, "base": -1.7}


def sources_of(weight):
    return [torch.float64] if weight == torch.float64 else FLOATS


def is_direct(isa, jobs):
    """Only the single pass takes no memory; the scalar kernel has one way for all."""
    return isa == "scalar" or _C.fuse_scratch_nbytes(jobs, 1, isa) == 0


def assert_bits(w, matrix, times, isa, base=None, threads=1):
    terms = [AnyTerm(matrix, SCALES[times], times)]
    pristine = w.clone() if base is None else base
    wanted, overflow = expected(pristine, terms)
    jobs = [job(w, terms, base)]
    assert is_direct(isa, jobs)
    assert _C.fuse(jobs, threads, isa) == ([0] if overflow else [])
    nan = torch.isnan(wanted) & torch.isfinite(pristine)
    assert torch.equal(torch.isnan(w) & torch.isfinite(pristine), nan)
    assert torch.equal(bits(w)[~nan], bits(wanted)[~nan])


def shifted(tensor, nbytes):
    """The same values at an address that is off by `nbytes`."""
    raw = tensor.contiguous().view(torch.uint8).flatten()
    memory = torch.zeros(raw.numel() + 64, dtype=torch.uint8)
    memory[nbytes : nbytes + raw.numel()] = raw
    return memory


class AtAnyAddress(Matrix):
    """A contiguous whole matrix that begins at an odd address."""

    def as_tuple(self):
        self.memory = shifted(self.down, 3)
        return (self.memory.data_ptr() + 3, *super().as_tuple()[1:])


class UpsideDown(Matrix):
    """A whole matrix that is stored from its last row to its first."""

    def as_tuple(self):
        self.stored = self.down.flip(0).contiguous()
        row = self.stored.stride(0)
        last = self.stored.data_ptr() + (self.stored.shape[0] - 1) * row * self.stored.element_size()
        return (last, NAMES[self.stored.dtype], -row, 1, *super().as_tuple()[4:])


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_widths(isa, generator, weight, times):
    for dtype in sources_of(weight):
        for cols in WIDTHS:
            matrix = Matrix(random_tensor(generator, 2, cols, dtype))
            assert_bits(random_tensor(generator, 2, cols, weight), matrix, times, isa)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_values_of_rows_and_columns(isa, generator, weight, times):
    """A value for each row may be of any type."""
    for dtype in NAMES:
        value = random_tensor(generator, 5, 1, dtype)
        for matrix in (value.expand(5, COLS), value[:1].expand(5, COLS)):
            assert_bits(random_tensor(generator, 5, COLS, weight), Matrix(matrix), times, isa)
    for dtype in sources_of(weight):
        row = random_tensor(generator, 1, COLS, dtype)
        assert_bits(random_tensor(generator, 5, COLS, weight), Matrix(row.expand(5, COLS)), times, isa)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_rows_that_lie_anyhow(isa, generator, weight, times):
    """Sections of wider tensors, odd addresses, mapped and reversed rows, and a base in a place of its own."""
    rows, cols = 6, 83
    for dtype in sources_of(weight):
        matrices = [
            Matrix(random_tensor(generator, 2 * rows, cols + 9, dtype)[1::2, 5 : 5 + cols]),
            Matrix(random_tensor(generator, 3, cols, dtype), None, folded(rows, 1, 3)),
            AtAnyAddress(random_tensor(generator, rows, cols, dtype)),
            UpsideDown(random_tensor(generator, rows, cols, dtype)),
        ]
        for matrix in matrices:
            base = random_tensor(generator, 3 * rows, cols + 5, weight)[::3, 2 : 2 + cols]
            frame = torch.full((2 * rows, cols + 7), 1.5, dtype=weight)
            w = frame[1::2, 3 : 3 + cols]
            assert_bits(w, matrix, times, isa, base)
            assert (frame[::2] == 1.5).all()
            assert (frame[:, :3] == 1.5).all()
            assert (frame[:, 3 + cols :] == 1.5).all()


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", FLOATS, ids=NAMES.get)
@pytest.mark.parametrize("shape", [(2, 65_536), (3, 131_073), (1, 200_001), (40, 5_003), (9_001, 9)])
def test_blocks_and_threads(isa, generator, weight, times, shape):
    """Blocks have 65,536 elements: rows together, or sections of one."""
    matrix = Matrix(random_tensor(generator, *shape, torch.bfloat16))
    base = random_tensor(generator, *shape, weight)
    for threads in (1, 3):
        assert_bits(torch.zeros_like(base), matrix, times, isa, base, threads)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("dtype", HALVES, ids=NAMES.get)
def test_every_pattern_of_a_weight(isa, generator, dtype, times):
    w = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).view(16, -1)
    spread = torch.randint(-30, 30, w.shape, generator=generator).to(torch.float64).exp2()
    values = (random_tensor(generator, *w.shape, torch.float64) * spread).to(torch.float32)
    assert_bits(w.clone(), Matrix(values), times, isa)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", FLOATS, ids=NAMES.get)
@pytest.mark.parametrize("dtype", HALVES, ids=NAMES.get)
def test_every_pattern_of_a_matrix(isa, generator, weight, dtype, times):
    values = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).view(16, -1)
    assert_bits(random_tensor(generator, *values.shape, weight), Matrix(values), times, isa)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_signed_zeros(isa, weight, times):
    """A sum that began at +0 is +0 where all that came is -0."""
    w, values = torch.zeros(4, COLS, dtype=weight), torch.zeros(4, COLS, dtype=sources_of(weight)[-1])
    w[1::2] = -0.0
    values[2:] = -0.0
    assert_bits(w, Matrix(values), times, isa)


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_what_is_not_finite_in_the_weight_is_kept(isa, generator, weight, times):
    """Wherever it stands, also where the matrix is not finite either."""
    matrix = Matrix(random_tensor(generator, 3, COLS, torch.float64 if weight == torch.float64 else torch.float32))
    w = random_tensor(generator, 3, COLS, weight)
    values = special(weight)
    for i, place in enumerate(PLACES):
        bits(w)[1, place] = bits(values)[i % values.numel()]
    before = bits(w).clone()
    assert_bits(w, matrix, times, isa)
    w[:] = before.view(weight)
    kept = ~torch.isfinite(w)
    matrix.down[kept] = (
        torch.tensor([float("nan"), float("inf")]).repeat(len(PLACES))[: int(kept.sum())].to(matrix.down.dtype)
    )
    assert_bits(w, matrix, times, isa)
    assert torch.equal(bits(w)[kept], before[kept])


@pytest.mark.parametrize("weight", FLOATS, ids=NAMES.get)
@pytest.mark.parametrize("pattern", [0x7FFFFFFF, -1, 0x7F800001, 0x7F800000])
def test_what_is_not_finite_in_the_matrix_is_an_overflow(isa, generator, weight, pattern):
    """Also a NaN whose payload would carry into the sign, in any column and in the value of a row."""
    bad = torch.tensor(pattern, dtype=torch.int32)
    for times in SCALES:
        for place in PLACES:
            whole = random_tensor(generator, 2, COLS, torch.float32)
            column = random_tensor(generator, 2, 1, torch.float32)
            bits(whole)[1, place] = bad
            bits(column)[1, 0] = bad
            for matrix, columns in ((whole, [place]), (column.expand(2, COLS), range(COLS))):
                w = random_tensor(generator, 2, COLS, weight).abs() + 1
                jobs = [job(w, [AnyTerm(Matrix(matrix), 0.5, times)])]
                assert is_direct(isa, jobs)
                assert _C.fuse(jobs, 1, isa) == [0]
                finite = torch.isfinite(w)
                assert not finite[1, list(columns)].any()
                assert int((~finite).sum()) == len(columns)


def test_the_edge_of_fp16(isa):
    for old, added, overflows in EDGE_OF_FP16:
        for place in PLACES:
            w, values = torch.zeros(1, COLS, dtype=torch.float16), torch.zeros(1, COLS)
            w[0, place], values[0, place] = old, added
            jobs = [job(w, [AnyTerm(Matrix(values), 1.0)])]
            assert is_direct(isa, jobs)
            assert _C.fuse(jobs, 1, isa) == ([0] if overflows else [])
            assert bool(torch.isinf(w[0, place])) == overflows


@pytest.mark.parametrize("times", SCALES)
@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_subnormals(isa, generator, weight, times):
    """In the weight, the matrix and the result, with flushing on outside."""
    wide = torch.float64 if weight == torch.float64 else torch.float32
    w = (random_tensor(generator, 3, COLS, wide) * torch.finfo(weight).tiny).to(weight)
    values = random_tensor(generator, 3, COLS, wide) * (1.0 if times else torch.finfo(weight).tiny)
    wanted, _ = expected(w, [AnyTerm(Matrix(values), SCALES[times], times)])
    jobs = [job(w, [AnyTerm(Matrix(values), SCALES[times], times)])]
    assert is_direct(isa, jobs)
    torch.set_flush_denormal(True)
    try:
        assert _C.fuse(jobs, 2, isa) == []
    finally:
        torch.set_flush_denormal(False)
    assert same_bits(w, wanted)


@pytest.mark.parametrize("isa", [name for name in _C.isas() if name != "scalar"])
def test_everything_else_goes_another_way(isa, generator):
    w = random_tensor(generator, 6, 40, torch.float32)
    values = random_tensor(generator, 6, 80, torch.float16)
    whole = Matrix(values[:, :40])
    others = [
        (w, [AnyTerm(whole, 1.0), AnyTerm(whole, 1.0)]),
        (w, [AnyTerm(whole, 1.0, whole)]),
        (w, [AnyTerm(Matrix(values[:, ::2]), 1.0)]),
        (w, [AnyTerm(Matrix(values, None, None, folded(40, 2, 80)), 1.0)]),
        (w, [AnyTerm(Matrix(values[:, :40].double()), 1.0)]),
        (w.t(), [AnyTerm(Matrix(values[:, :40].t().contiguous()), 1.0)]),
    ]
    assert all(_C.fuse_scratch_nbytes([job(*other)], 1, isa) > 0 for other in others)
