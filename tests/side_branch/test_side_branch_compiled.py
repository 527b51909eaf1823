"""Compiled models with side branches: they are seen at once, and strengths and switches compile nothing again."""

import pytest
import torch
from int8_linears import SHAPES, Model, in_float64, inputs
from side_adapters import make
from torch._dynamo.testing import CompileCounter

import lora_mmap

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns of what it uses itself

X = inputs()


@pytest.fixture(params=["eager", "aot_eager"])
def backend(request):
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def adapters(tmp_path):
    """Of which the first has the most ranks."""
    return [
        make(tmp_path, SHAPES, 1, rank=12, alpha=6.0, size=0.3),
        make(tmp_path, SHAPES, 2, rank=5, alpha=None, size=0.3),
        make(tmp_path, {"first": SHAPES["first"]}, 3, rank=7, alpha=7.0, size=0.3),
    ]


def compose(model, entries):
    return lora_mmap.compose(model, [(made.path, strength) for made, strength in entries], strict=True)


def branch_pointers(model):
    """Of all tensors that modules have beside parameters and buffers."""
    found = {}
    for name, module in model.named_modules():
        found |= {(name, key): value.data_ptr() for key, value in vars(module).items() if torch.is_tensor(value)}
    return found


def assert_computes(compiled, model, entries):
    """What the modules themselves compute, which is what the files say."""
    found = compiled(X)
    torch.testing.assert_close(found, model.forward(X))
    torch.testing.assert_close(found.double(), in_float64(Model(), entries, X), rtol=1e-4, atol=1e-4)


def histories(model, adapters):
    """(what is in the model then) after each call of those that fit into 12 ranks a module."""
    one, two, three = adapters
    for multiplier in (0.5, -1.0, 0.0, 1.0):
        lora_mmap.set_lora_strength_v2(model, multiplier)
        yield [(one, multiplier)]
    compose(model, [(two, 0.7)])
    yield [(two, 0.7)]
    compose(model, [(two, -0.4), (three, 1.0)])
    yield [(two, -0.4), (three, 1.0)]
    compose(model, [(three, 0.5)])
    yield [(three, 0.5)]
    compose(model, [(three, 0.5), (two, 1.0)])
    lora_mmap.reset(model, adapters=[three.path])
    yield [(two, 1.0)]
    compose(model, [(one, 1.0)])
    yield [(one, 1.0)]


@pytest.mark.parametrize("first", ["pristine", "composed"])
def test_compiled_once_for_a_capacity(model, adapters, backend, first):
    """Whether it is compiled before anything is composed, or with an adapter in it."""
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    if first == "pristine":
        assert_computes(compiled, model, [])
    compose(model, [(adapters[0], 1.0)])
    assert_computes(compiled, model, [(adapters[0], 1.0)])
    pointers = branch_pointers(model)
    assert len(pointers) == 4
    with torch._dynamo.config.patch(error_on_recompile=True):
        for entries in histories(model, adapters):
            assert_computes(compiled, model, entries)
            assert branch_pointers(model) == pointers


def test_after_a_reset_it_is_what_it_was(model, adapters, backend):
    """The graphs with and without branches are both kept."""
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    pristine = compiled(X)
    compose(model, [(adapters[0], 1.0)])
    composed = compiled(X)
    assert not torch.allclose(composed, pristine)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            lora_mmap.reset(model)
            assert torch.equal(compiled(X), pristine)
            compose(model, [(adapters[0], 1.0)])
            assert torch.equal(compiled(X), composed)


def test_one_graph_without_and_one_with(model, adapters):
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    compiled(X)
    assert counter.frame_count == 1
    compose(model, [(adapters[0], 1.0)])
    compiled(X)
    for _ in histories(model, adapters):
        compiled(X)
    assert counter.frame_count == 2
    torch._dynamo.reset()


HOWS = {
    "wrapper": lambda model, backend: torch.compile(model, backend=backend),
    "in place": lambda model, backend: model.compile(backend=backend),
    "linear in place": lambda model, backend: model.first.compile(backend=backend),
    "linear wrapped": lambda model, backend: setattr(model, "first", torch.compile(model.first, backend=backend)),
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("when", ["before", "while"])
def test_compiled_parts(model, adapters, backend, how, when):
    """A linear that is compiled by itself keeps its branch, and computes when the branch is gone."""
    entries = [(adapters[0], 1.0), (adapters[2], 0.5)]
    if when == "while":
        compose(model, entries)
    compiled = how(model, backend)
    compiled = model if compiled is None else compiled
    if when == "before":
        torch.testing.assert_close(compiled(X).double(), in_float64(Model(), [], X), rtol=1e-4, atol=1e-4)
        compose(compiled, entries)
    torch.testing.assert_close(compiled(X).double(), in_float64(Model(), entries, X), rtol=1e-4, atol=1e-4)
    lora_mmap.set_lora_strength_v2(compiled, -0.5)
    halved = [(made, -0.5 * strength) for made, strength in entries]
    torch.testing.assert_close(compiled(X).double(), in_float64(Model(), halved, X), rtol=1e-4, atol=1e-4)
    assert lora_mmap.reset(compiled)
    torch.testing.assert_close(compiled(X).double(), in_float64(Model(), [], X), rtol=1e-4, atol=1e-4)
