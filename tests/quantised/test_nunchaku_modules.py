"""The stand-ins for Nunchaku's layers compute what they say, from tensors in the layout of the real ones."""

import pytest
import torch
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear, low_rank, pack, packed_offsets, unpack

SIDES = range(16, 129, 16)


@pytest.mark.parametrize("down", [True, False], ids=["down", "up"])
def test_unpacking_undoes_packing(down):
    for rank in SIDES:
        for features in SIDES:
            shape = (rank, features) if down else (features, rank)
            matrix = torch.arange(rank * features, dtype=torch.int32).reshape(shape)
            packed = pack(matrix, down)
            assert packed.shape == (features, rank)
            assert torch.equal(packed.reshape(-1).sort().values, matrix.reshape(-1)), (rank, features)
            assert torch.equal(unpack(packed, down), matrix), (rank, features)


@pytest.mark.parametrize("down", [True, False], ids=["down", "up"])
def test_offsets_are_those_of_the_kernels(down):
    """The published index formula, element by element, at rank 48 and 80 features."""
    rank, features = 48, 80
    found = packed_offsets(rank, features, down)
    for r in range(rank):
        for c in range(features):
            n, k = (r % 16, c % 16) if down else (c % 16, r % 16)
            off = ((c // 16) * (rank // 16) + r // 16) * 256
            off += (n % 8) * 32 + ((k % 8) // 2) * 8 + (n // 8) * 4 + (k // 8) * 2 + (k % 2)
            assert found[(r, c) if down else (c, r)] == off, (r, c)


def test_tiles_lie_one_after_the_other():
    """By hand: 16 x 16 elements of rank 0..15 and features 0..15, then ranks 16..31, then features 16..31."""
    offsets = packed_offsets(32, 32, True)
    assert [offsets[0, 0], offsets[0, 1], offsets[0, 2], offsets[0, 8]] == [0, 1, 8, 2]
    assert [offsets[1, 0], offsets[8, 0], offsets[16, 0], offsets[0, 16]] == [32, 4, 256, 512]
    offsets = packed_offsets(32, 32, False)
    assert [offsets[0, 0], offsets[0, 1], offsets[0, 2], offsets[0, 8]] == [0, 1, 8, 2]
    assert [offsets[1, 0], offsets[8, 0], offsets[0, 16], offsets[16, 0]] == [32, 4, 256, 512]


def test_rank_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ValueError, match="rank 24"):
        packed_offsets(24, 64, True)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_svdq_forward_is_its_dense_matrix(bias):
    module = SVDQW4A4Linear(128, 80, rank=32, bias=bias, seed=3)
    dense = torch.zeros(80, 128, dtype=torch.float64)
    for row in range(80):
        for column in range(128):
            byte = int(module.qweight[row, column // 2]) & 255
            level = byte >> 4 if column % 2 else byte & 15
            level -= 16 if level > 7 else 0
            scale = float(module.wscales[column // 64, row])
            dense[row, column] = level * scale / float(module.smooth_factor[column])
    branch = low_rank(module)
    assert branch.norm() > 0.1 * dense.norm()  # a forward without it would be seen
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = x @ (dense + branch).t() + (module.bias.double() if bias else 0)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_awq_forward_is_its_dense_matrix():
    module = AWQW4A16Linear(128, 96, seed=4)
    dense = torch.zeros(96, 128, dtype=torch.float64)
    for row in range(96):
        for column in range(128):
            word = int(module.qweight[row // 4, column // 2]) & 0xFFFFFFFF
            level = word >> 4 * (2 * (row % 4) + column % 2) & 15
            group = column // 64
            dense[row, column] = level * float(module.wscales[group, row]) + float(module.wzeros[group, row])
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(module(x), x @ dense.t() + module.bias.double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [SVDQW4A4Linear, AWQW4A16Linear], ids=["svdq", "awq"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
def test_narrow_inputs_are_computed_in_float32_and_rounded_once(make, dtype):
    module = make(128, 64, dtype=dtype)
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = module(x)
    assert found.dtype == dtype
    exact = module(x.double())
    sums = 64 * torch.finfo(torch.float32).eps  # of 128 products, in float32
    assert (found.double() - exact).abs().max() <= exact.abs().max() * (torch.finfo(dtype).eps + sums)


def test_every_rank_column_counts():
    """A branch of another rank is read as such, and a module that does not say so is refused."""
    module = SVDQW4A4Linear(64, 32, rank=16)
    up = torch.randn(32, 48, generator=torch.Generator().manual_seed(5)).bfloat16()
    down = torch.randn(48, 64, generator=torch.Generator().manual_seed(6)).bfloat16()
    module.proj_up = torch.nn.Parameter(pack(up, False), requires_grad=False)
    module.proj_down = torch.nn.Parameter(pack(down, True), requires_grad=False)
    with pytest.raises(AssertionError, match="rank 48"):
        module(torch.zeros(1, 64))
    module.rank = 48
    assert torch.equal(low_rank(module), up.double() @ down.double())
    assert module(torch.ones(1, 64)).isfinite().all()


def test_attributes_of_the_real_layers():
    module = SVDQW4A4Linear(128, 64, rank=32)
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in module.named_parameters()}
    assert shapes == {
        "qweight": ((64, 64), torch.int8),
        "bias": ((64,), torch.bfloat16),
        "wscales": ((2, 64), torch.bfloat16),
        "smooth_factor": ((128,), torch.bfloat16),
        "smooth_factor_orig": ((128,), torch.bfloat16),
        "proj_down": ((128, 32), torch.bfloat16),
        "proj_up": ((64, 32), torch.bfloat16),
    }
    module = AWQW4A16Linear(128, 64)
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in module.named_parameters()}
    assert shapes == {
        "qweight": ((16, 64), torch.int32),
        "bias": ((64,), torch.bfloat16),
        "wscales": ((2, 64), torch.bfloat16),
        "wzeros": ((2, 64), torch.bfloat16),
    }
    assert not any(value.requires_grad for value in module.parameters())


@pytest.mark.parametrize("make", [SVDQW4A4Linear, AWQW4A16Linear], ids=["svdq", "awq"])
def test_meta_device_has_the_same_parameters(make):
    def forms(module):
        return {name: (value.shape, value.dtype) for name, value in module.named_parameters()}

    on_meta = make(128, 64, device="meta")
    assert all(value.is_meta for value in on_meta.parameters())
    assert forms(on_meta) == forms(make(128, 64))
