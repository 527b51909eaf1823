"""Conversions between element types, against torch and numpy. A rank-1 term with B = 1 carries a value of A into an
fp32 weight of zeros unchanged, and into a 16-bit one through a single rounding."""

import numpy as np
import pytest
import torch

from lora_mmap import _C

NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
F8 = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


def carried(values, name, dtype, isa):
    """A row of factor A after fusion with B = 1 into zeros of `dtype`."""
    count = values.numel()
    weight = torch.zeros(1, count, dtype=dtype)
    one = torch.ones(1)
    term = (values.data_ptr(), name, count, 1, one.data_ptr(), "F32", 1, 1, 1, 0, 0, 1.0)
    address = weight.data_ptr()
    _C.fuse([(address, address, 1, count, count, 1, count, 1, NAMES[dtype], [term])], 1, isa)
    return weight[0]


def assert_same(actual, wanted):
    """Bit for bit but for NaN payloads."""
    nan = torch.isnan(wanted)
    assert torch.equal(torch.isnan(actual), nan)
    integer = torch.int16 if wanted.element_size() == 2 else torch.int32
    assert torch.equal(actual.view(integer)[~nan], wanted.view(integer)[~nan])


def added_to_zero(values, dtype):
    """What carried() should give: -0 + 0 is +0, but what only rounds to -0 stays negative."""
    rounded = values.to(dtype)
    return torch.where(values.to(torch.float32) == 0, torch.zeros_like(rounded), rounded)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=NAMES.get)
def test_every_16_bit_pattern_widens(isa, dtype):
    values = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    assert_same(carried(values, NAMES[dtype], torch.float32, isa), added_to_zero(values, torch.float32))


@pytest.mark.parametrize("name", F8)
def test_every_8_bit_pattern_widens(isa, name):
    values = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(F8[name])
    assert_same(carried(values, name, torch.float32, isa), added_to_zero(values, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=NAMES.get)
def test_every_16_bit_weight_survives_adding_nothing(isa, dtype):
    values = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(1, -1)
    weight = values.clone().view(dtype)
    address, count = weight.data_ptr(), weight.numel()
    assert _C.fuse([(address, address, 1, count, count, 1, count, 1, NAMES[dtype], [])], 1, isa) == []
    negative_zero = torch.where(values == -32768, 0, values)
    assert torch.equal(weight.view(torch.int16), negative_zero)


def around_boundaries(shift):
    """Floats at, just below and just above every 16-bit value and every midpoint between two."""
    high = torch.arange(0, 65536, dtype=torch.int64) << 16
    halves = torch.arange(0, 8, dtype=torch.int64) << shift
    near = torch.tensor([-2, -1, 0, 1, 2])
    patterns = (high[:, None, None] + halves[:, None] + near).flatten() & 0xFFFFFFFF
    return patterns.to(torch.uint32).view(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=NAMES.get)
@pytest.mark.parametrize("shift", [12, 13, 15])
def test_rounding_to_16_bits(isa, dtype, shift):
    values = around_boundaries(shift)
    if dtype == torch.float16:  # torch and numpy agree on what is right
        with np.errstate(all="ignore"):
            by_numpy = torch.from_numpy(values.numpy().astype(np.float16))
        assert_same(values.to(dtype), by_numpy)
    assert_same(carried(values, "F32", dtype, isa), added_to_zero(values, dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=NAMES.get)
def test_rounding_of_subnormals(isa, dtype):
    """Midpoints of the 16-bit subnormals and their neighbours, of both signs."""
    smallest = 2.0**-24 if dtype == torch.float16 else 2.0**-133
    ties = torch.arange(0, 2100, dtype=torch.float64) * (smallest / 2)
    base = torch.cat([ties, -ties]).to(torch.float32)
    values = torch.cat([base, torch.nextafter(base, torch.tensor(2.0)), torch.nextafter(base, torch.tensor(-2.0))])
    assert_same(carried(values, "F32", dtype, isa), added_to_zero(values, dtype))


def test_fp64_factors_round_once(isa):
    tie = 1 + 2.0**-24
    values = torch.tensor(
        [tie, np.nextafter(tie, 2), np.nextafter(tie, 0), 1e-45, 7e-46, 1e300, -1e-300], dtype=torch.float64
    )
    assert_same(carried(values, "F64", torch.float32, isa), added_to_zero(values, torch.float32))
