"""Journals leave no memory behind, whatever else lives on."""

from __future__ import annotations

import gc
import sys

import pytest
import torch
from torch import nn

import lora_mmap

MIB = 1 << 20


def anonymous_nbytes() -> int:
    gc.collect()
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


def linear(size: int) -> nn.Module:
    torch.manual_seed(size)
    model = nn.ModuleDict({"linear": nn.Linear(size, size, bias=False, dtype=torch.bfloat16)})
    return model.requires_grad_(False)


def adapter(size: int) -> dict[str, torch.Tensor]:
    """Larger than the weight, so that its journal takes a good part of a copy."""
    torch.manual_seed(1)
    down, up = torch.randn(4, size) * 0.1, torch.randn(size, 4) * 0.1
    return {"linear.lora_A.weight": down, "linear.lora_B.weight": up}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_memory_of_a_journal_goes_back_while_another_lives():
    large, small = linear(4096), linear(64)
    journal = lora_mmap.compose(large, [(adapter(4096), 1.0)]).restore["journal"]["bytes"]
    assert journal > 6 * MIB
    lora_mmap.compose(small, [(adapter(64), 1.0)])  # made later: it lies behind the other, were they in one heap
    before = anonymous_nbytes()
    lora_mmap.reset(large)
    assert before - anonymous_nbytes() > 0.5 * journal  # each thread may keep a MiB
    lora_mmap.reset(small)
