"""A checkpoint at another precision than the model: rounded as torch rounds, NaNs by a rule of its own."""

import itertools

import pytest
import torch
from base_values import Beside, bits

from lora_mmap import _C

TYPES = (torch.float16, torch.bfloat16, torch.float32)
PAIRS = [pair for pair in itertools.product(TYPES, TYPES) if pair[0] != pair[1]]
MOST = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000}


def every(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


def around(values):
    """fp32 patterns at ``values``, half-way to their neighbours, and one step beside both; every tie is among them."""
    wide = values.float().view(torch.int32)
    wide = wide[torch.isfinite(values)]
    half = 1 << (15 if values.dtype == torch.bfloat16 else 12)
    return torch.cat([wide + offset for offset in (0, 1, -1, half, half + 1, half - 1)]).view(torch.float32)


def subnormal_ties():
    """Half-way between the subnormals of fp16, whose steps in fp32 are not those of normal numbers."""
    ties = (torch.arange(0, 2048, dtype=torch.float64) + 0.5).mul_(2.0**-24).float().view(torch.int32)
    return torch.cat([ties - 1, ties, ties + 1]).view(torch.float32)


def patterns(dtype):
    """All of a 16-bit type; of fp32 all that round in any interesting way, and NaNs with every upper half."""
    if dtype != torch.float32:
        return every(dtype)
    upper = torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16
    payloads = torch.cat([upper | low for low in (0, 1, 0x1000, 0x2000, 0x7FFF, 0x8000, 0xFFFF)]).view(torch.float32)
    signed = torch.cat([around(every(torch.float16)), subnormal_ties(), around(every(torch.bfloat16))])
    return torch.cat([signed, -signed, payloads])


def nan_bits(values, target):
    """Sign and upper bits of the payload are kept; quiet, but where bf16 grows to fp32."""
    wide = bits(values).long() & (2**32 - 1)
    if values.dtype == torch.bfloat16:
        wide = (wide & 0xFFFF) << 16
    elif values.dtype == torch.float16:
        wide = (wide & 0x8000) << 16 | 0x7FC00000 | (wide & 0x3FF) << 13
    if target == torch.float32:
        return wide
    if target == torch.bfloat16:
        return wide >> 16 | 0x40
    return (wide >> 31) << 15 | 0x7E00 | (wide >> 13 & 0x3FF)


def as_matrix(values):
    """Rows of a length that no vector divides."""
    cols = 1021
    whole = torch.cat([values, values[: -len(values) % cols]])
    return whole.reshape(-1, cols)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
@pytest.mark.parametrize("isa", _C.isas())
def test_every_pattern(source, target, isa, tmp_path):
    values = as_matrix(patterns(source))
    file = Beside(tmp_path, values)
    read = file.read(torch.zeros(values.shape, dtype=target), isa=isa)
    nan = values.isnan()
    assert torch.equal(bits(read)[~nan], bits(values.to(target))[~nan])
    assert torch.equal(bits(read)[nan].long() & (2 ** (8 * target.itemsize) - 1), nan_bits(values[nan], target))
    assert file.equals(read, isa=isa)
    for place in (0, 5, read.numel() - 1):
        bits(read).view(-1)[place] ^= 1
        assert not file.equals(read, isa=isa)
        bits(read).view(-1)[place] ^= 1


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_what_torch_loads_equals(source, target, tmp_path):
    generator = torch.Generator().manual_seed(1)
    values = (torch.randn(300, 417, generator=generator) * torch.logspace(-30, 4, 417)).to(source)
    values[0, :4] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    assert Beside(tmp_path, values).equals(values.to(target), 2)


SUBNORMALS = [
    (torch.float32, torch.bfloat16, 2500 * 2.0**-149),
    (torch.float32, torch.float16, 2.0**-26),
    (torch.bfloat16, torch.float32, 2.0**-133),
    (torch.float16, torch.bfloat16, 2.0**-24),
]


@pytest.mark.parametrize(("source", "target", "step"), SUBNORMALS, ids=str)
@pytest.mark.parametrize("isa", _C.isas())
def test_the_callers_floating_point_mode_changes_nothing(source, target, step, isa, tmp_path):
    count = 100 if source == torch.bfloat16 else 1000  # all of them subnormal on one of the two sides
    values = (torch.arange(1, count + 1, dtype=torch.float64) * step).to(source).reshape(10, -1)
    wanted = bits(values.to(target))
    assert torch.count_nonzero(wanted) > count // 2
    file = Beside(tmp_path, values)
    try:
        assert torch.set_flush_denormal(True)
        read = file.read(torch.ones(values.shape, dtype=target), isa=isa)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(bits(read), wanted)
