"""The values that are written: one product in fp32, one rounding, and the count of those that overflow."""

import pytest
import torch
from branch_reference import BRANCH_DTYPES, NAMES, Branch, random_bits

from lora_mmap import _C

SCALES = [
    (1.0, "up"),
    (1.0, "down"),
    (-1.0, "plain"),
    (0.1, "down"),
    (3.7e-5, "plain_by_rank"),
    (1e-38, "up"),
    (1e-45, "down"),
    (65504.0, "up"),
    (1e38, "down"),
    (1e300, "up"),
    (float("inf"), "plain"),
    (float("nan"), "down"),
    (0.0, "up"),
]


def special_values(dtype, generator):
    """Every pattern of 8 and 16 bits; of more, many, and those around what 16 bits can say."""
    if dtype in (torch.float16, torch.bfloat16):
        return torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
    if dtype.itemsize == 1:
        return torch.arange(65536, dtype=torch.int32).to(torch.uint8).view(dtype)
    high = torch.arange(0, 65536, 8, dtype=torch.int64) << 16
    near = torch.tensor([-1, 0, 1, 0x0FFF, 0x1000, 0x1001, 0x8000])
    boundaries = ((high[:, None] + near).flatten() & 0xFFFFFFFF).to(torch.uint32).view(torch.float32)
    subnormal = torch.arange(1024) * 2.0**-25
    found = torch.cat([boundaries, subnormal, -subnormal]).to(dtype)
    return torch.cat([found, random_bits(generator, 65536 - found.numel(), dtype)])


@pytest.mark.parametrize("dtype", BRANCH_DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("factor_dtype", list(NAMES), ids=NAMES.get)
def test_rounding_and_overflow(isa, factor_dtype, dtype, generator):
    values = special_values(factor_dtype, generator)
    for scale, layout in SCALES:
        by_rank = layout in ("down", "plain_by_rank")
        factor = values.reshape(16, 4096).t() if by_rank else values.reshape(4096, 16)
        branch = Branch(layout, 4096, 16, dtype, generator)
        counts = _C.write_factors([branch.job(factor, (0, 4096), (0, 16), scale)], 1, isa)
        branch.check()
        result = (factor.float() * scale).to(dtype)
        copied = factor_dtype == dtype and scale == 1
        overflowed = torch.isfinite(factor.double()) & ~torch.isfinite(result)
        assert counts == [0 if copied else int(overflowed.sum())]


@pytest.mark.parametrize("dtype", BRANCH_DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("layout", ["down", "up", "plain"])
def test_copies_keep_payloads(isa, layout, dtype, generator):
    for factor in (random_bits(generator, 16 * 512, dtype).reshape(512, 16) for _ in range(8)):
        for strided in (factor, factor.t().contiguous().t()):
            branch = Branch(layout, 512, 16, dtype, generator)
            assert _C.write_factors([branch.job(strided, (0, 512), (0, 16))], 1, isa) == [0]
            branch.check_every_bit()


@pytest.mark.parametrize("factor_dtype", list(NAMES), ids=NAMES.get)
def test_features_left_alone_do_not_overflow(isa, factor_dtype, generator):
    index = torch.arange(320, dtype=torch.int32)
    index[::3] = -1
    for layout in ("down", "up", "plain", "plain_by_rank"):
        branch = Branch(layout, 320, 16, torch.float16, generator)
        factor = torch.ones(320, 16).to(factor_dtype)
        counts = _C.write_factors([branch.job(factor, (0, 320), (0, 16), 1e30, index)], 1, isa)
        assert counts == [int((index >= 0).sum()) * 16]
        branch.check()


@pytest.mark.parametrize(
    ("dtype", "tie"),
    [(torch.float16, 0x477FF000), (torch.bfloat16, 0x7F7F8000), (torch.float32, 0x7F800000)],
    ids=["F16", "BF16", "F32"],
)
@pytest.mark.parametrize("position", [0, 7, 255])
def test_one_that_barely_overflows(isa, dtype, tie, position, generator):
    """The least that rounds to infinity, and the greatest that does not, alone among ones."""
    for pattern, overflowed in [(tie - 1, 0), (tie, 1 if dtype != torch.float32 else 0)]:
        for sign in (1.0, -1.0):
            factor = torch.ones(16, 16)
            factor.view(-1)[position] = torch.tensor(pattern, dtype=torch.int32).view(torch.float32)
            branch = Branch("up", 16, 16, dtype, generator)
            assert _C.write_factors([branch.job(factor, (0, 16), (0, 16), sign)], 1, isa) == [overflowed]
            branch.check()


def test_every_job_has_its_count(isa, generator):
    """Spread over many pieces of each job."""
    factor = torch.ones(9000, 16)
    jobs, wanted = [], []
    branches = [Branch("up", 9008, 16, torch.float16, generator) for _ in range(4)]
    for overflows, branch in zip([0, 1, 9000, 144_000], branches, strict=True):
        values = factor.clone()
        values.view(-1)[torch.randperm(144_000, generator=generator)[:overflows]] = 65520
        values[0, 0] = float("inf") if overflows == 0 else values[0, 0]
        jobs.append((values, branch.job(values, (0, 9000), (0, 16))))
        wanted.append(overflows)
    assert _C.write_factors([job for _values, job in jobs], 3, isa) == wanted
    assert _C.write_factors([], 3, isa) == []


@pytest.fixture
def flushing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("threads", [1, 3])
def test_flushing_changes_no_bit(isa, threads, generator, request):
    """Subnormal factors, scale, products and results."""
    jobs, branches, kept = [], [], []
    for factor_dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value, scale in [(1e-5, 1e-38), (1e-40, 3.0), (1.0, 1e-40), (1e-30, 1e-9)]:
            for dtype in BRANCH_DTYPES:
                factor = torch.full((64, 16), value, dtype=torch.float64).to(factor_dtype)
                branch = Branch("down", 64, 16, dtype, generator)
                jobs.append(branch.job(factor, (0, 64), (0, 16), scale))
                branches.append(branch)
                kept.append(factor)
    request.getfixturevalue("flushing")
    _C.write_factors(jobs, threads, isa)
    tiny = torch.tensor([1e-40]) * torch.tensor([1.0])
    torch.set_flush_denormal(False)
    assert tiny.view(torch.int32).item() == 0  # still flushing after the call
    for branch in branches:
        branch.check()
