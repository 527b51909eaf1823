"""Weights on a device get the CPU's bits, whatever order the device does things in, and give them back."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed
from device_models import MODULES, adapter_file, differing

import lora_mmap


@pytest.fixture(params=["eager", "lazy", "random"], autouse=True)
def order(request, fake_cuda):
    fake_cuda.mode(request.param, 7)


def test_one_adapter(models, torch_side, tmp_path):
    device, host = models
    path = adapter_file(tmp_path, host)
    for model in models:
        assert lora_mmap.compose(model, [(path, 0.7)])
    torch_side.synchronize()
    assert differing(device, host) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64], ids=str)
def test_factors_of_other_types(models, torch_side, tmp_path, dtype):
    device, host = models
    path = adapter_file(tmp_path, host, dtype=dtype, rank=3)
    for model in models:
        lora_mmap.compose(model, [(path, -1.3)])
    torch_side.synchronize()
    assert differing(device, host) == []


def test_a_history_of_compositions(models, torch_side, tmp_path, sha256):
    """Adding, replacing, strengths through zero and below, a dict, parts of what was there: same bits at every step."""
    device, host = models
    pristine = sha256(host)
    files = [adapter_file(tmp_path, host, seed=seed, rank=rank) for seed, rank in ((1, 4), (2, 17))]
    some = keyed(adapter_for(host, ["small", "conv"], seed=3))
    steps = [
        lambda model: lora_mmap.compose(model, [(files[0], 1.0)]),
        lambda model: lora_mmap.compose(model, [(files[0], 0.5), (files[1], -0.25), (some, 2.0)]),
        lambda model: lora_mmap.set_lora_strength_v2(model, 0.5),
        lambda model: lora_mmap.set_lora_strength_v2(model, 0.0),
        lambda model: lora_mmap.set_lora_strength_v2(model, -1.0),
        lambda model: lora_mmap.compose(model, [(some, 1.0)]),
    ]
    for number, step in enumerate(steps):
        for model in models:
            step(model)
        torch_side.synchronize()
        assert differing(device, host) == [], f"step {number}"
    for model in models:
        assert lora_mmap.reset(model)
    torch_side.synchronize()
    assert sha256(device) == sha256(host) == pristine


def test_commit_and_forget(models, torch_side, tmp_path):
    device, host = models
    for model in models:
        for seed in (1, 2):
            report = lora_mmap.compose(model, [(adapter_file(tmp_path, host, seed=seed), 1.0)], restore="none")
        assert report.restore == {}
        assert not lora_mmap.reset(model)
    torch_side.synchronize()
    assert differing(device, host) == []


def test_many_windows(models, torch_side, tmp_path, monkeypatch):
    """More windows than the arena has regions: each is reused when it is free, and no sooner."""
    from lora_mmap.cuda import device_stream

    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    device, host = models
    paths = [adapter_file(tmp_path, host, seed=seed, rank=9) for seed in (1, 2)]
    for model in models:
        lora_mmap.compose(model, [(path, 0.3) for path in paths])
    torch_side.synchronize()
    assert differing(device, host) == []


class Attention(torch.nn.Module):
    """Qwen-Image's names, with its three projections fused."""

    def __init__(self):
        super().__init__()
        block = torch.nn.Module()
        block.attn = torch.nn.Module()
        block.attn.to_qkv = torch.nn.Linear(24, 3 * 20).bfloat16()
        block.attn.add_qkv_proj = torch.nn.Linear(24, 3 * 20).bfloat16()
        self.transformer_blocks = torch.nn.ModuleList([block])


def test_rows_of_a_fused_weight(torch_side):
    """Three pairs of one fused projection: each on its rows, and again when only one of them stays."""
    torch.manual_seed(0)
    host = Attention()
    device = torch_side.move(copy.deepcopy(host))
    tensors = {}
    for seed, part in enumerate("qkv"):
        down, up = factors(20, 24, rank=5 + seed, seed=seed)
        tensors |= keyed({f"transformer_blocks.0.attn.to_{part}": (down, up)})
    only_k = {name: tensor for name, tensor in tensors.items() if ".to_k." in name}
    for adapter in (tensors, only_k):
        for model in (device, host):
            report = lora_mmap.compose(model, [(adapter, 0.5)])
            assert report.applied == len(adapter) // 2
        torch_side.synchronize()
        assert differing(device, host) == []


def test_fast_arithmetic_is_close(models, torch_side, tmp_path):
    device, host = models
    path = adapter_file(tmp_path, host, dtype=torch.bfloat16, rank=24)
    lora_mmap.compose(device, [(path, 0.7)], numerics="fast")
    lora_mmap.compose(host, [(path, 0.7)], numerics="fast")
    torch_side.synchronize()
    for name in MODULES:
        ours, theirs = (model.get_submodule(name).weight.double() for model in models)
        assert (ours - theirs).norm() <= 2e-3 * theirs.norm(), name
    assert set(differing(device, host)) <= {"small.weight", "brain.weight", "single.weight", "conv.weight"}
    for model in models:
        lora_mmap.reset(model)
    torch_side.synchronize()
    assert differing(device, host) == []
