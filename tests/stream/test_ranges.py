"""Coalescing and the layout of a staging buffer: pure arithmetic on byte ranges."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

ranges = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 12)), max_size=12)


def bytes_of(pairs):
    return {byte for offset, nbytes in pairs for byte in range(offset, offset + nbytes)}


@given(wanted=ranges, barred=ranges, max_gap=st.integers(0, 20))
def test_spans_hold_every_wanted_byte_once_and_no_barred_one(wanted, barred, max_gap):
    spans = _C.coalesce(wanted, barred, max_gap)
    need, walls = bytes_of(wanted), bytes_of(barred)
    covered = bytes_of(spans)
    assert covered >= need
    assert len(covered) == sum(nbytes for _, nbytes in spans)  # disjoint
    assert spans == sorted(spans)
    assert not (covered - need) & walls
    for offset, nbytes in spans:
        assert {offset, offset + nbytes - 1} <= need  # no span reads beyond what was wanted
        gap = 0
        for byte in range(offset, offset + nbytes):
            gap = 0 if byte in need else gap + 1
            assert gap <= max_gap
    for (a, a_nbytes), (b, _) in itertools.pairwise(spans):
        gap = set(range(a + a_nbytes, b))
        assert gap, "spans that touch must be one"
        assert len(gap) > max_gap or gap & walls, "a gap that could have been bridged"


@given(wanted=ranges, barred=ranges, max_gap=st.integers(0, 20), alignment=st.sampled_from([1, 2, 8, 64]))
def test_a_staging_plan_places_every_range(wanted, barred, max_gap, alignment):
    spans, positions, nbytes = _C.plan_staging(wanted, barred, max_gap, alignment)
    assert [(offset, length) for offset, length, _ in spans] == _C.coalesce(wanted, barred, max_gap)
    end = 0
    staged = {}
    for offset, length, position in spans:
        assert position % alignment == 0
        assert end <= position < end + alignment
        end = position + length
        staged |= {position + i: offset + i for i in range(length)}
    assert nbytes == end
    for (offset, length), position in zip(wanted, positions, strict=True):
        assert [staged[position + i] for i in range(length)] == list(range(offset, offset + length))


def test_examples():
    assert _C.coalesce([], [], 0) == []
    assert _C.coalesce([(5, 0)], [], 9) == []
    assert _C.coalesce([(8, 4), (0, 4), (4, 4)], [], 0) == [(0, 12)]
    assert _C.coalesce([(0, 4), (6, 4)], [], 1) == [(0, 4), (6, 4)]
    assert _C.coalesce([(0, 4), (6, 4)], [], 2) == [(0, 10)]
    assert _C.coalesce([(0, 4), (6, 4)], [(5, 1)], 2) == [(0, 4), (6, 4)]
    assert _C.coalesce([(0, 4), (6, 4)], [(5, 0), (10, 9)], 2) == [(0, 10)]
    assert _C.coalesce([(0, 4), (6, 4), (12, 1)], [(0, 6), (3, 4)], 2) == [(0, 4), (6, 7)]


def test_the_ends_of_the_number_line():
    top = 2**64 - 1
    assert _C.coalesce([(top - 1, 1), (0, 1)], [], top) == [(0, top)]
    assert _C.coalesce([(top, 0)], [], 0) == []
    with pytest.raises(ArgumentError, match="beyond"):
        _C.coalesce([(top, 1)], [], 0)
    with pytest.raises(ArgumentError, match="beyond"):
        _C.coalesce([(0, 1)], [(2, top)], 0)
    with pytest.raises(ArgumentError, match="beyond"):
        _C.plan_staging([(0, 1), (3, top - 3)], [], 0, 8)


@pytest.mark.parametrize("alignment", [0, 3, 12])
def test_alignment_is_a_power_of_two(alignment):
    with pytest.raises(ArgumentError, match="power of two"):
        _C.plan_staging([(0, 1)], [], 0, alignment)
