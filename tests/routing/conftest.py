"""No test may leave a trace in anybody's names."""

import logging

import pytest
import safetensors.torch
import torch
from routed_loading import holders

import lora_mmap


@pytest.fixture(autouse=True)
def no_trace():
    before = holders()
    assert not lora_mmap.installed()
    yield
    was_on, after = bool(lora_mmap.installed()), holders()
    lora_mmap.uninstall()
    assert not was_on
    assert {held: after.get(held) for held in before} == before


@pytest.fixture
def path(tmp_path):
    """A file of two tensors."""
    path = tmp_path / "two.safetensors"
    torch.manual_seed(0)
    tensors = {"weight": torch.randn(23, 37), "bias": torch.randn(37).to(torch.float16)}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def log_lines(caplog):
    """Takes (level, text) of what this package logged since the last call."""
    caplog.set_level(logging.INFO, logger="lora_mmap")

    def take():
        lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "lora_mmap"]
        caplog.clear()
        return lines

    return take
