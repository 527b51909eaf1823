"""Any history of calls, failing ones among them, leaves what its last successful call alone would have made."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, keyed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import lora_mmap
from lora_mmap.errors import LoraMmapError


class Attention(nn.Module):
    """A block of Qwen-Image with its projections fused, besides a tied pair and a convolution."""

    def __init__(self):
        super().__init__()
        block = nn.Module()
        block.attn = nn.Module()
        block.attn.to_qkv = nn.Linear(7, 15, bias=False)
        self.transformer_blocks = nn.ModuleList([block])
        self.a, self.b = nn.Linear(6, 9), nn.Linear(6, 9)
        self.b.weight = self.a.weight
        self.conv = nn.Conv2d(3, 5, 2)


def sources():
    torch.manual_seed(0)
    model = Attention().to(torch.bfloat16)
    split = copy.deepcopy(model)
    attention = split.transformer_blocks[0].attn
    for part in ("to_q", "to_k", "to_v"):
        setattr(attention, part, nn.Linear(7, 5, bias=False))
    path = "transformer_blocks.0.attn."
    choices = [
        [path + "to_q"],
        [path + "to_k", "a"],
        [path + "to_v", "b", "conv"],
        [path + "to_qkv"],
        ["a", "b"],
        ["conv"],
    ]
    adapters = [keyed(adapter_for(split, modules, 3, seed=i)) for i, modules in enumerate(choices)]
    bad = keyed(adapter_for(split, [path + "to_q", "a", "conv"], 3, seed=99))
    bad["conv.lora_A.weight"][0, 0, 0, 0] = float("nan")
    return model, [lora_mmap.open_adapter(tensors) for tensors in [*adapters, bad]]


MODEL, SOURCES = sources()
entries = st.lists(st.tuples(st.sampled_from(range(6)), st.sampled_from([-1.0, 0.0, 0.3, 1.0])), max_size=3)
steps = st.one_of(
    st.tuples(st.just("compose"), entries),
    st.tuples(st.just("strength"), st.sampled_from([0.0, 0.5, 1.0])),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("fail"), st.none()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(steps, max_size=6))
def test_history(history):
    model = copy.deepcopy(MODEL)
    composed, factor = [], 1.0
    for step, argument in history:
        if step == "compose":
            lora_mmap.compose(model, [(SOURCES[i], strength) for i, strength in argument])
            composed, factor = argument, 1.0
        elif step == "strength":
            lora_mmap.set_lora_strength_v2(model, argument)
            factor = argument if composed else 1.0
        elif step == "reset":
            lora_mmap.reset(model)
            composed, factor = [], 1.0
        else:
            with pytest.raises(LoraMmapError):
                lora_mmap.compose(model, [(SOURCES[0], 1.0), (SOURCES[6], 1.0)])
        expected = copy.deepcopy(MODEL)
        lora_mmap.compose(expected, [(SOURCES[i], strength * factor) for i, strength in composed])
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, expected.get_parameter(name)), (step, name)
    lora_mmap.reset(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, MODEL.get_parameter(name)), ("reset", name)
