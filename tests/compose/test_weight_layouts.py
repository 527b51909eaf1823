"""Strides and dimensions of a weight change neither the sum nor the bytes between its elements."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed
from numerics_bound import assert_one_rounding
from torch import nn

import lora_mmap


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_convolution_equals_the_contiguous_one(small, dtype):
    plain = small.to(dtype)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert not last.conv.weight.is_contiguous()
    strides = last.conv.weight.stride()
    adapter = keyed(adapter_for(plain, ["conv", "point"]))
    lora_mmap.compose(plain, [(adapter, 1.0)])
    lora_mmap.compose(last, [(adapter, 1.0)])
    assert last.conv.weight.stride() == strides
    assert torch.equal(last.conv.weight, plain.conv.weight)
    assert torch.equal(last.point.weight, plain.point.weight)


def _strided(kind, rows, cols):
    if kind == "transposed":
        return torch.randn(cols, rows).t()
    if kind == "row gap":
        return torch.randn(rows, cols + 5)[:, :cols]
    if kind == "column gap":
        return torch.randn(rows, cols * 3)[:, ::3]
    return torch.randn(rows * cols + 1)[1:].reshape(rows, cols)  # aligned to its element only


@pytest.mark.parametrize("kind", ["transposed", "row gap", "column gap", "offset"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_strided_weights(kind, dtype):
    layer = nn.Linear(19, 31, bias=False)
    values = _strided(kind, 31, 19)
    whole = values._base if values._base is not None else values
    whole = whole.to(dtype)
    view = torch.as_strided(whole, values.shape, values.stride(), values.storage_offset())
    layer.weight = nn.Parameter(view)
    storage = whole.clone()
    pristine = view.detach().clone()
    pair = factors(31, 19)
    model = nn.Sequential(layer)
    lora_mmap.compose(model, [(keyed({"0": pair}), 1.0)])
    assert layer.weight.stride() == values.stride()
    assert_one_rounding(layer.weight, pristine, [(*pair, 1.0)])
    untouched = torch.ones_like(whole, dtype=torch.bool)
    torch.as_strided(untouched, values.shape, values.stride(), values.storage_offset()).fill_(False)
    assert torch.equal(whole[untouched], storage[untouched]), "bytes between the elements changed"
    lora_mmap.reset(model)
    assert torch.equal(whole, storage)


def test_one_convolution_as_a_matrix_and_as_a_kernel(small):
    """A 1x1 convolution takes 2-D factors too."""
    other = copy.deepcopy(small)
    down, up = factors(11, (7, 1, 1))
    lora_mmap.compose(small, [(keyed({"point": (down, up)}), 1.0)])
    lora_mmap.compose(other, [(keyed({"point": (down.flatten(1), up.flatten(1))}), 1.0)])
    assert torch.equal(small.point.weight, other.point.weight)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
def test_one_and_three_dimensional_convolutions(kind):
    model = nn.Sequential(kind(3, 6, 2, groups=1, bias=False))
    pristine = model[0].weight.detach().clone()
    pair = factors(6, tuple(pristine.shape[1:]))
    lora_mmap.compose(model, [(keyed({"0": pair}), 1.0)])
    assert_one_rounding(model[0].weight, pristine, [(*pair, 1.0)])
