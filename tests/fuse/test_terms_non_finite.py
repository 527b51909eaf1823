"""Terms of other kinds: what is not finite in a weight keeps its bits, and what becomes so is an overflow."""

import pytest
import torch
from fusion_reference import NAMES, WEIGHTS, bits, expected, job, random_tensor, same_bits
from term_kinds import AnyTerm, Matrix, products
from test_fuse_non_finite import special

from lora_mmap import _C

ROWS, COLS = 9, 21
PATTERNS = [0x7FFFFFFF, -1, 0x7F800001, 0x7F800000]  # NaNs whose payload would carry into the sign, and infinity


def terms_of_each_kind(generator, weight):
    """(terms, the fp32 tensors that they read)"""
    wide = torch.float64 if weight == torch.float64 else torch.float32
    whole = Matrix(random_tensor(generator, ROWS, COLS, torch.float32))
    product = next(products(generator, ROWS, COLS, 3, torch.float32))[1]
    column = random_tensor(generator, ROWS, 1, torch.float32)
    per_row = Matrix(column.as_strided((ROWS, COLS), (1, 0)))
    factors = random_tensor(generator, 1, COLS, wide)
    gain = Matrix(factors.as_strided((ROWS, COLS), (0, 1)))
    yield [AnyTerm(whole, 0.5)], [whole.down]
    yield [AnyTerm(product, 0.5, whole)], [product.down, product.up, whole.down]
    yield [AnyTerm(per_row, 0.5, "base")], [column]
    yield [AnyTerm(product, 0.5, None, gain, 0.7)], [product.down, product.up, factors]
    yield [AnyTerm(whole, 0.5, product, gain, 0.7)], [whole.down, product.up, factors]


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_bits_are_kept(isa, generator, weight):
    for terms, _ in terms_of_each_kind(generator, weight):
        w, values = random_tensor(generator, ROWS, COLS, weight), special(weight)
        at = torch.randperm(w.numel(), generator=generator)[: len(values)]
        bits(w).view(-1)[at] = bits(values)
        wanted, overflow = expected(w, terms)
        assert not overflow
        assert _C.fuse([job(w, terms)], 1, isa) == []
        assert same_bits(w, wanted)
        assert torch.equal(bits(w).view(-1)[at], bits(values))


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_read_and_not_finite_is_an_overflow(isa, generator, weight, pattern):
    bad = torch.tensor([pattern], dtype=torch.int32).view(torch.float32)
    for terms, tensors in terms_of_each_kind(generator, weight):
        for tensor in tensors:
            first = tensor[0, :1].clone()
            if tensor.dtype == torch.float32:
                bits(tensor)[0, :1] = bits(bad)
            else:
                tensor[0, 0] = bad[0]
            w = random_tensor(generator, ROWS, COLS, weight)
            finite = random_tensor(generator, ROWS, COLS, weight)
            assert _C.fuse([job(finite, []), job(w, terms)], 1, isa) == [1]
            assert not torch.isfinite(w[0, 0])
            assert torch.isfinite(w[1:, 1:]).all()
            tensor[0, :1] = first


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_no_overflow_where_the_weight_already_was_not_finite(isa, generator, weight):
    """Also in the padding of a panel, which may hold anything."""
    for terms, tensors in terms_of_each_kind(generator, weight):
        w = random_tensor(generator, ROWS, COLS, weight)
        w[0] = float("nan")
        w[:, 0] = float("-inf")
        before = bits(w).clone()
        tensors[0][0, 0] = float("inf")
        if terms[0].matrix.up is not None:
            terms[0].matrix.down[0] = 1.0
            terms[0].matrix.up[0] = float("inf")
        assert _C.fuse([job(w, terms)], 1, isa) == []
        assert torch.equal(bits(w)[0], before[0])
        assert torch.equal(bits(w)[:, 0], before[:, 0])


def test_a_scale_that_is_not_finite(isa, generator):
    payload = torch.tensor([-1], dtype=torch.int64).view(torch.float64).item()
    for scale in (payload, float("nan"), float("inf")):
        for weight in WEIGHTS:
            w = random_tensor(generator, ROWS, COLS, weight)
            whole = Matrix(torch.ones(ROWS, COLS))
            for term in (AnyTerm(whole, scale), AnyTerm(whole, scale, whole), AnyTerm(whole, scale, "base")):
                fused = w.clone()
                assert _C.fuse([job(fused, [term])], 1, isa) == [0]
                assert not torch.isfinite(fused).any()


@pytest.mark.parametrize("weight", WEIGHTS, ids=NAMES.get)
def test_subnormals(isa, generator, weight):
    tiny = torch.finfo(torch.float32).tiny if weight != torch.float64 else torch.finfo(torch.float64).tiny
    wide = torch.float64 if weight == torch.float64 else torch.float32
    whole = Matrix((random_tensor(generator, ROWS, COLS, wide) * tiny).to(wide))
    w = (random_tensor(generator, ROWS, COLS, wide) * torch.finfo(weight).tiny).to(weight)
    terms = [AnyTerm(whole, 0.3), AnyTerm(whole, 0.3, Matrix(torch.full((ROWS, COLS), 0.7)))]
    wanted, _ = expected(w, terms)
    assert _C.fuse([job(w, terms)], 1, isa) == []
    assert same_bits(w, wanted)
