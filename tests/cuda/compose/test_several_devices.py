"""A model whose weights are on the CPU and on two devices: fused where they are, or nowhere."""

import copy

import pytest
import torch
from device_models import adapter_file, differing
from torch import nn

import lora_mmap


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.here = nn.Linear(19, 23)
        self.there = nn.Linear(30, 40).bfloat16()
        self.yonder = nn.Linear(16, 64).half()


PARTS = ("here", "there", "yonder")


@pytest.fixture
def split(torch_side):
    torch.manual_seed(2)
    host = Split()
    device = copy.deepcopy(host)
    torch_side.move(device.there, 0)
    torch_side.move(device.yonder, 1)
    return device, host


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_each_weight_is_fused_where_it_is(split, torch_side, fake_cuda, tmp_path, sha256, mode):
    fake_cuda.mode(mode, 3)
    device, host = split
    pristine = sha256(host)
    path = adapter_file(tmp_path, host, modules=PARTS)
    reports = [lora_mmap.compose(model, [(path, 0.4)]) for model in split]
    torch_side.synchronize()
    assert differing(device, host) == []
    assert reports[0].bytes_read == reports[1].bytes_read
    lora_mmap.reset(device)
    torch_side.synchronize()
    assert sha256(device) == pristine


@pytest.mark.parametrize("part", PARTS)
def test_an_overflow_anywhere_changes_nothing_anywhere(split, torch_side, tmp_path, sha256, part):
    device, host = split
    before = sha256(device)
    with torch.no_grad():
        getattr(device, part).weight[3, 5] = 60000.0 if part == "yonder" else 3e38
    before = sha256(device)
    tensors = {}
    for name in PARTS:
        rows, cols = getattr(host, name).weight.shape
        tensors[f"{name}.lora_A.weight"] = torch.full((1, cols), 1e19 if name == part else 0.1)
        tensors[f"{name}.lora_B.weight"] = torch.full((rows, 1), 1e19 if name == part else 0.1)
    with pytest.raises(lora_mmap.errors.FusionOverflowError, match=f"'{part}.weight'"):
        lora_mmap.compose(device, [(tensors, 1.0)])
    torch_side.synchronize()
    assert sha256(device) == before
