"""A cache with nothing in it, whatever the environment says, and adapters on disk."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from torch import nn

import lora_mmap
from lora_mmap.cache_settings import BYTES_VARIABLE, SIZE_VARIABLES

MODULES = tuple(map(str, range(4)))


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    for name in (*SIZE_VARIABLES, BYTES_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    lora_mmap.clear_lora_cache()
    yield
    lora_mmap.clear_lora_cache()


@pytest.fixture
def make_model():
    def make():
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(96, 80) for _ in MODULES))

    return make


@pytest.fixture
def files(tmp_path, make_model):
    """Twelve adapters."""
    model = make_model()
    return [write(tmp_path / f"{n}.safetensors", keyed(adapter_for(model, MODULES, seed=n), 2)) for n in range(12)]
