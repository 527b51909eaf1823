"""Linears that other libraries have quantised: what adapters add beside them, and that nothing is left of it."""

import pytest
import torch
from quantised_linears import SHAPES, every_kind
from side_adapters import assert_adds, three

import lora_mmap

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries

FORWARDS = {
    "one in float32": (1, torch.float32),
    "three in float32": (3, torch.float32),
    "three in bfloat16": (3, torch.bfloat16),
}
STRENGTHS = (1.0, -0.7, 0.4)


def inputs_of(dtype):
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(5)).to(dtype)
    return x, {name: x[..., :cols] for name, (_, cols) in SHAPES.items()}


def bits(value):
    """Types, shapes and bytes of a tensor, of those that it is made of where it is of a kind of its own."""
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        return type(value), {name: bits(getattr(value, name)) for name in names}
    if not isinstance(value, torch.Tensor):
        return repr(value)
    with torch._C.DisableTorchFunctionSubclass():
        plain = value.detach().as_subclass(torch.Tensor).contiguous()
        return type(value), plain.dtype, tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def state(model):
    return {name: bits(value) for name, value in model.state_dict().items()}


def traces(model):
    """All that tells a module with a branch from one without."""
    return {name: (type(module), module.__class__, list(module.__dict__)) for name, module in model.named_modules()}


def listed(adapters, count):
    return list(zip(adapters, STRENGTHS, strict=True))[:count]


def compose(model, entries):
    return lora_mmap.compose(model, [(made.path, strength) for made, strength in entries], strict=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("count", "dtype"), FORWARDS.values(), ids=FORWARDS)
@every_kind
def test_the_forward_has_what_the_files_say(kind, count, dtype, tmp_path):
    model, entries = kind.make(dtype), listed(three(tmp_path, SHAPES), count)
    x, inputs, factors = *inputs_of(dtype), kind.branch_dtypes(dtype, of_file=torch.float16)
    before = model(x)
    report = compose(model, entries)
    found = {name: (one["target"], one["base_rank"], one["rank"]) for name, one in report.branches.items()}
    ranks = {name: sum(len(made.factors[name][0]) for made, _ in entries if name in made.factors) for name in SHAPES}
    assert found == {name: ("side_branch", 0, rank) for name, rank in ranks.items()}
    sizes = [ranks[name] * sum(SHAPES[name]) * factors[name].itemsize for name in SHAPES]
    assert report.memory["branches"] == sum(sizes)
    assert_adds(before, model(x), entries, inputs, factors)


@every_kind
def test_strengths(kind, tmp_path):
    dtype = torch.float32
    model, entries = kind.make(dtype), listed(three(tmp_path, SHAPES), 3)
    x, inputs, factors = *inputs_of(dtype), kind.branch_dtypes(dtype, of_file=torch.float16)
    before = model(x)
    compose(model, entries)
    first = model(x)
    for multiplier in (-0.5, 2.0):
        lora_mmap.set_lora_strength_v2(model, multiplier)
        assert_adds(before, model(x), [(made, multiplier * strength) for made, strength in entries], inputs, factors)
    lora_mmap.set_lora_strength_v2(model, 0)
    assert same(model(x), before)
    lora_mmap.set_lora_strength_v2(model, 1)
    assert same(model(x), first)


@every_kind
def test_nothing_is_left_after_a_reset(kind, tmp_path):
    dtype = torch.bfloat16
    model, entries = kind.make(dtype), listed(three(tmp_path, SHAPES), 3)
    x, inputs, factors = *inputs_of(dtype), kind.branch_dtypes(dtype, of_file=torch.float16)
    before, values, clean = model(x), state(model), traces(model)
    text = repr(model)
    compose(model, entries)
    assert not same(model(x), before)
    assert state(model) == values
    assert repr(model) == text
    compose(model, entries[1:2])
    assert_adds(before, model(x), entries[1:2], inputs, factors)
    assert lora_mmap.reset(model) is True
    assert state(model) == values
    assert traces(model) == clean
    assert repr(model) == text
    assert same(model(x), before)
    assert lora_mmap.reset(model) is False
