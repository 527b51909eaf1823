"""Factors that stay on the device: nothing is brought there again, and nothing stays longer than it is needed."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from torch import nn

import lora_mmap
from lora_mmap.cuda import from_torch

MODULES = tuple(map(str, range(6)))
FACTORS = 6 * 2 * 8 * 256 * 4


@pytest.fixture
def make():
    def model():
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in MODULES))

    return model


@pytest.fixture
def paths(make, tmp_path):
    return [write(tmp_path / f"{n}.safetensors", keyed(adapter_for(make(), MODULES, 8, n))) for n in range(2)]


def differing(model, torch_side, make, entries):
    torch_side.synchronize()
    twin = make()
    lora_mmap.compose(twin, entries)
    return [n for n in MODULES if not torch.equal(model[int(n)].weight, twin[int(n)].weight)]


def test_they_are_there_alone(make, paths, torch_side):
    model = torch_side.move(make())
    before = torch_side.held[0]
    memory = lora_mmap.compose(model, [(paths[0], 1.0)], retain="device").memory
    assert memory["retained"] == 0
    assert memory["retained_on_devices"] == FACTORS
    assert torch_side.held[0] - before == FACTORS + memory["restore"]
    assert differing(model, torch_side, make, [(paths[0], 1.0)]) == []
    lora_mmap.reset(model)
    assert torch_side.held[0] == before


def test_other_strengths_bring_nothing(make, paths, torch_side, fake_cuda):
    brought = {}
    for retain in ("memory", "device"):
        model = torch_side.move(make())
        lora_mmap.compose(model, [(paths[0], 1.0)], retain=retain)
        before = fake_cuda.calls["cuMemcpyHtoDAsync"]
        report = lora_mmap.set_lora_strength_v2(model, 0.5)
        brought[retain] = fake_cuda.calls["cuMemcpyHtoDAsync"] - before
        assert report.bytes_read == 0
        assert differing(model, torch_side, make, [(paths[0], 0.5)]) == []
        lora_mmap.reset(model)
    assert brought["device"] < brought["memory"]


def test_one_more_adapter_brings_its_own(make, paths, torch_side):
    model = torch_side.move(make())
    with lora_mmap.open_adapter(paths[0]) as one, lora_mmap.open_adapter(paths[1]) as other:
        lora_mmap.compose(model, [(one, 1.0)], retain="device")
        report = lora_mmap.compose(model, [(one, 0.5), (other, 1.0)], retain="device")
        assert report.memory["retained_on_devices"] == 2 * FACTORS
        assert report.bytes_read == FACTORS
        assert differing(model, torch_side, make, [(paths[0], 0.5), (paths[1], 1.0)]) == []
        lora_mmap.reset(model, adapters=[one])
        assert differing(model, torch_side, make, [(paths[1], 1.0)]) == []
        lora_mmap.reset(model)


def test_without_room_they_stay_in_host_memory(make, paths, torch_side, monkeypatch):
    original, asked = torch_side.allocate, []

    def scarce(shape, dtype, device):
        asked.append(shape)
        if asked == [(FACTORS,)]:  # the first thing asked for
            raise torch.OutOfMemoryError("scarce")
        return original(shape, dtype, device)

    monkeypatch.setattr(from_torch, "allocate", scarce)
    model = torch_side.move(make())
    memory = lora_mmap.compose(model, [(paths[0], 1.0)], retain="device").memory
    assert asked[0] == (FACTORS,)
    assert memory["retained_on_devices"] == 0
    assert memory["retained"] >= FACTORS
    lora_mmap.set_lora_strength_v2(model, 2.0)
    assert differing(model, torch_side, make, [(paths[0], 2.0)]) == []
    lora_mmap.reset(model)


@pytest.mark.parametrize(("offload_device", "there"), [("cuda", FACTORS), ("cpu", 0)])
def test_pipelines_say_where(make, paths, torch_side, offload_device, there):
    model = torch_side.move(make())
    report = lora_mmap.load_and_fuse_lora(model, paths[0], offload_device=offload_device)
    assert report.memory["retained_on_devices"] == there
    assert (report.memory["retained"] > 0) == (there == 0)
    report = lora_mmap.set_and_fuse_adapters(model, "default_0", -0.5)
    assert (report.memory["retained_on_devices"], report.bytes_read) == (there, 0)
    assert differing(model, torch_side, make, [(paths[0], -0.5)]) == []
    lora_mmap.unfuse_lora(model)


def test_on_the_cpu_they_are_in_memory(make, paths, sha256):
    model = make()
    memory = lora_mmap.compose(model, [(paths[0], 1.0)], retain="device").memory
    assert memory["retained"] >= FACTORS
    assert memory["retained_on_devices"] == 0
    lora_mmap.reset(model)
    assert sha256(model) == sha256(make())
