"""Compiled models see new weights at once, in the storage they were compiled with, and nothing is compiled again."""

import copy
import shutil

import pytest
import torch
from adapter_tensors import adapter_for, keyed
from torch import nn
from undo_tiers import every_tier

import lora_mmap

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns of what it uses itself

MODULES = ["inner.first", "inner.second", "conv", "table"]


class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 48)
        self.inner = nn.Sequential()
        self.inner.first, self.inner.second = nn.Linear(48, 70), nn.Linear(70, 16)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, tokens):
        hidden = self.inner(self.table(tokens)).unflatten(-1, (4, 2, 2)).flatten(0, 1)
        return self.conv(hidden).relu().sum((2, 3))


TOKENS = torch.arange(10).reshape(2, 5)


@pytest.fixture(params=["inductor", "aot_eager", "eager"])
def backend(request):
    if request.param == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Compiled().requires_grad_(False)


def adapters(model):
    tensors = keyed(adapter_for(model, MODULES[:3], seed=1, size=0.5))
    tensors["table.lora_embedding_A"] = torch.randn(4, 11)
    tensors["table.lora_embedding_B"] = torch.randn(48, 4)
    return [tensors, keyed(adapter_for(model, MODULES[1:3], seed=2, size=0.5))]


def plainly(model):
    """What the modules themselves compute, uncompiled."""
    return model.forward(TOKENS)


def histories(model, arguments):
    one, two = adapters(model)
    yield lora_mmap.compose(model, [(one, 1.0)], **arguments)
    yield lora_mmap.compose(model, [(two, 1.0)], **arguments)
    yield lora_mmap.compose(model, [(two, 0.5), (one, 0.7)], **arguments)
    yield lora_mmap.set_lora_strength_v2(model, -0.5)
    yield lora_mmap.set_lora_strength_v2(model, 0.0)
    yield lora_mmap.set_lora_strength_v2(model, 1.0)
    yield lora_mmap.reset(model)
    yield lora_mmap.compose(model, [(one, 0.3)], **arguments)
    yield lora_mmap.reset(model)


@every_tier
@pytest.mark.parametrize("first", ["pristine", "composed"])
def test_no_recompilation(model, backend, tier, first, tmp_path):
    """Whether it was compiled before anything was composed, or with adapters in it."""
    arguments, (one, _) = tier.arguments(model, tmp_path), adapters(model)
    pristine = plainly(model)
    if first == "composed":
        lora_mmap.compose(model, [(one, 1.0)], **arguments)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(TOKENS), plainly(model))
    pointers = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    before, seen = compiled(TOKENS), []
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in histories(model, arguments):
            now = compiled(TOKENS)
            torch.testing.assert_close(now, plainly(model))
            assert not torch.equal(now, before)
            before = now
            seen.append(now)
    torch.testing.assert_close(seen[-1], pristine)
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == pointers


@pytest.mark.parametrize("how", ["wrapper", "in place", "a child"])
def test_through_the_compiled_model(model, backend, how):
    """compose and reset take the compiled model itself; one with compiled parts too."""
    (one, _), compiled, twin = adapters(model), model, copy.deepcopy(model)
    lora_mmap.compose(twin, [(one, 1.0)], restore="none")
    if how == "wrapper":
        compiled = torch.compile(model, backend=backend)
    elif how == "in place":
        model.compile(backend=backend)
    else:
        model.inner = torch.compile(model.inner, backend=backend)
    pristine = compiled(TOKENS)
    with torch._dynamo.config.patch(error_on_recompile=True):
        lora_mmap.compose(compiled, [(one, 1.0)], strict=True)
        composed = compiled(TOKENS)
        torch.testing.assert_close(composed, twin(TOKENS))
        assert not torch.allclose(composed, pristine)
        assert lora_mmap.reset(compiled)
        assert torch.equal(compiled(TOKENS), pristine)


def test_exactly_one_graph(model):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for _ in range(3):
        compiled(TOKENS)
        for _ in histories(model, {}):
            compiled(TOKENS)
    assert counter.frame_count == 1
    torch._dynamo.reset()
