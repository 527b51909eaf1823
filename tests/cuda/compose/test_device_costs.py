"""What a composition on a device costs: reads, copies, launches, memory; and that the report tells it."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from device_models import adapter_file
from torch import nn

import lora_mmap
from lora_mmap import _C
from lora_mmap.cuda import arena, device_stream

MiB = 1 << 20


def counted(fake, work):
    native, calls = _C.counters(), dict(fake.calls)
    result = work()
    native = {name: value - native[name] for name, value in _C.counters().items()}
    return result, native, {name: value - calls.get(name, 0) for name, value in fake.calls.items()}


def test_bytes_copied_are_bytes_needed(models, fake_cuda, tmp_path):
    """Rank 8 in fp32: every tensor is a multiple of 16 bytes."""
    device, host = models
    path = adapter_file(tmp_path, host, rank=8, modules=["small", "brain", "conv", "turned"])
    with lora_mmap.open_adapter(path) as adapter:
        needed = adapter.nbytes
    report, native, calls = counted(fake_cuda, lambda: lora_mmap.compose(device, [(path, 0.01)]))
    assert report.bytes_read == path.stat().st_size
    assert native["bytes_uploaded"] == needed
    assert calls["cuLaunchKernel"] <= 4
    assert native["copies_issued"] == 1


def test_a_file_of_three_thousand_tensors_in_a_handful_of_copies(torch_side, fake_cuda, tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(64, 64, bias=False) for _ in range(1500)]).bfloat16()
    path = write(tmp_path / "many.safetensors", keyed(adapter_for(model, map(str, range(1500)), dtype=torch.bfloat16)))
    torch_side.move(model)
    report, native, calls = counted(fake_cuda, lambda: lora_mmap.compose(model, [(path, 0.001)]))
    assert report.weights == report.restore["journal"]["modules"] == 1500
    assert native["copies_issued"] <= 5
    assert calls["cuLaunchKernel"] <= 4


def test_memory_on_the_device_is_bounded(torch_side, fake_cuda, tmp_path, monkeypatch):
    """Beyond the weights: the arena's windows and the journal, as the report says; the adapters are in host memory."""
    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", MiB)
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(256, 256, bias=False) for _ in range(60)])
    weights_nbytes = 60 * 256 * 256 * 4
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(model, map(str, range(60)), rank=64)))
    assert path.stat().st_size > 6 * MiB
    torch_side.move(model)
    torch_side.reset_peak()
    before = torch_side.held[0]
    report = lora_mmap.compose(model, [(path, 0.0001)])
    memory = report.memory
    tables = 96 << 10
    assert torch_side.peak[0] - before <= memory["arena"] + memory["restore"] + memory["transient"] + tables
    assert memory["arena"] <= 3 * MiB + 4096
    assert memory["transient"] + memory["restore"] <= weights_nbytes / 7
    assert torch_side.held[0] - before == memory["restore"] <= weights_nbytes / 10
    assert _C.cuda_pinned_block_nbytes() == 0
    assert memory["retained"] == 60 * 2 * 64 * 256 * 4
    assert memory["pinned"] == _C.cuda_pinned_nbytes() <= 33 * MiB
    lora_mmap.reset(model)
    assert torch_side.held[0] == before


def test_copies_are_in_host_memory(torch_side, fake_cuda, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256, bias=False))
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(model, ["0"], rank=4)))
    torch_side.move(model)
    before = torch_side.held[0]
    report = lora_mmap.compose(model, [(path, 1.0)], restore="backup")
    hashes = torch_side.held[0] - before
    assert 0 < hashes <= 4096
    assert report.memory["restore"] == hashes + 256 * 256 * 4
    assert report.memory["retained"] == 0
    assert _C.cuda_pinned_block_nbytes() == 256 * 256 * 4
    lora_mmap.reset(model)
    assert torch_side.held[0] == before
    assert _C.cuda_pinned_block_nbytes() == 0


def test_the_ring_is_given_back(models, tmp_path):
    lora_mmap.compose(models[0], [(adapter_file(tmp_path, models[1]), 1.0)])
    pinned = _C.cuda_pinned_nbytes()
    assert pinned > 0
    assert lora_mmap.clear_lora_cache()["pinned"] == pinned
    assert _C.cuda_pinned_nbytes() == 0
    assert lora_mmap.clear_lora_cache()["pinned"] == 0
    assert lora_mmap.compose(models[0], [(adapter_file(tmp_path, models[1]), 0.5)])


def test_small_adapters_have_small_arenas(models, tmp_path):
    report = lora_mmap.compose(models[0], [(adapter_file(tmp_path, models[1], modules=["single"]), 1.0)])
    assert 0 < report.memory["arena"] <= arena.aligned(4 * (23 + 37) * 4) + 64
    assert f"arena on the GPU {report.memory['arena']} bytes" in str(report)


@pytest.mark.parametrize("gap", [1, 7])
def test_misaligned_tensors_are_aligned_on_the_device(models, torch_side, tmp_path, gap):
    """A file whose tensors begin at odd offsets: the bits are the same."""
    from device_models import differing

    device, host = models
    tensors = {"0": torch.zeros(gap, dtype=torch.uint8), **keyed(adapter_for(host, ["single", "brain"], rank=3))}
    path = write(tmp_path / "odd.safetensors", tensors)
    for model in models:
        lora_mmap.compose(model, [(path, 1.0)])
    torch_side.synchronize()
    assert differing(device, host) == []
