"""What we keep about a model dies with it, and what we keep about a composition dies with the composition."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from torch import nn
from undo_tiers import every_tier, one_of_each_tier

import lora_mmap

MiB = 1 << 20


def linears(count=4, size=512):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(count)))


def adapter_file(model, folder, seed=0, rank=16):
    modules = [str(index) for index in range(len(model))]
    return write(folder / f"{seed}.safetensors", keyed(adapter_for(model, modules, rank, seed)))


def resident():
    """Bytes of memory that the process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(action, warm_up, times):
    """Bytes that ``times`` repetitions leave behind, after ``warm_up`` of them."""
    for _ in range(warm_up):
        action()
    before = resident()
    for _ in range(times):
        action()
    return resident() - before


@pytest.mark.parametrize("ending", ["composed", "reset", "switched", "strength"])
@every_tier
def test_model_and_weights_die(tier, tmp_path, ending):
    """At once when the last reference goes, report or not: nothing of ours makes a cycle of it."""
    model = linears()
    arguments = tier.arguments(model, tmp_path)
    report = lora_mmap.compose(model, [(adapter_file(model, tmp_path), 1.0)], **arguments)
    if ending == "switched":
        lora_mmap.compose(model, [(adapter_file(model, tmp_path, 1), 1.0)], **arguments)
    elif ending == "strength":
        lora_mmap.set_lora_strength_v2(model, -0.5)
    elif ending == "reset":
        lora_mmap.reset(model)
    died = [weakref.ref(model), weakref.ref(model[0].weight)]
    gc.collect()
    gc.disable()
    try:
        del model
        assert died[0]() is None
    finally:
        gc.enable()
    gc.collect()
    assert died[1]() is None
    assert report


@one_of_each_tier
def test_models_come_and_go(tier, tmp_path):
    """4 MiB of weights each: records, copies and factors go with them, and so do the descriptors."""
    path = adapter_file(linears(), tmp_path)
    arguments = tier.arguments(linears(), tmp_path)

    def come_and_go():
        model = linears()
        lora_mmap.compose(model, [(path, 1.0)], **arguments)

    descriptors = len(os.listdir("/proc/self/fd"))
    assert growth(come_and_go, 5, 40) < 24 * MiB
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@one_of_each_tier
def test_one_composition_after_another(tier, tmp_path):
    """Each leaves what the one before had, not more."""
    model = linears()
    arguments = tier.arguments(model, tmp_path)
    paths = [adapter_file(model, tmp_path, seed) for seed in range(3)]
    turn = iter(range(10_000))

    def change():
        number = next(turn)
        lora_mmap.compose(model, [(paths[number % 3], 0.1), (paths[(number + 1) % 3], 1.0)], **arguments)
        lora_mmap.set_lora_strength_v2(model, 0.5)
        if number % 5 == 0:
            lora_mmap.reset(model)

    descriptors = len(os.listdir("/proc/self/fd"))
    assert growth(change, 10, 60) < 16 * MiB
    lora_mmap.reset(model)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@one_of_each_tier
def test_a_reset_gives_everything_back(tier, tmp_path):
    """16 MiB of weights and adapters of 1 MiB: afterwards the process holds what it held before the composition."""
    model = linears(16)
    arguments = tier.arguments(model, tmp_path)
    paths = [adapter_file(model, tmp_path, seed, 16) for seed in range(2)]
    for path in paths:  # what is allocated once
        lora_mmap.compose(model, [(path, 1.0)], **arguments)
        lora_mmap.reset(model)
    before = resident()
    report = lora_mmap.compose(model, [(path, 1.0) for path in paths], **arguments)
    held = report.memory["restore"] + report.memory["retained"]
    lora_mmap.reset(model)
    assert resident() - before < 8 * MiB
    assert held > 0


@one_of_each_tier
def test_an_adapter_of_ours_is_closed_when_the_model_dies(tier, tmp_path):
    """Also where it was composed with another; one that the caller opened stays open."""
    model = linears(2, 64)
    arguments = tier.arguments(model, tmp_path)
    descriptors = len(os.listdir("/proc/self/fd"))
    with lora_mmap.open_adapter(adapter_file(model, tmp_path)) as adapter:
        lora_mmap.compose(model, [(adapter, 1.0), (adapter_file(model, tmp_path, 1), 1.0)], **arguments)
        assert len(os.listdir("/proc/self/fd")) > descriptors
        del model
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors + 1
        assert lora_mmap.compose(linears(2, 64), [(adapter, 1.0)])
