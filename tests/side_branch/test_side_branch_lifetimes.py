"""What happens to side branches when their modules are copied, saved, converted, or die."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from composed_linears import BESIDE, X, assert_computes, composed, scaled
from int8_linears import Model, in_float64

import lora_mmap
from lora_mmap.errors import ModelError


@pytest.fixture
def model(entries):
    return composed(Model(), entries)


def factors_of(model):
    """Tensors that modules have beside parameters and buffers."""
    return [value for module in model.modules() for value in vars(module).values() if torch.is_tensor(value)]


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "oldest pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=0)),
    "torch.save": saved,
}
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@every_copy
def test_a_copy_computes_the_same_and_is_refused(model, entries, copied):
    twin = copied(model)
    assert torch.equal(twin(X), model(X))
    assert type(twin.first) is type(model.first)
    for call in (
        lora_mmap.reset,
        lambda model: composed(model, entries),
        lambda model: lora_mmap.compose(model, []),
    ):
        with pytest.raises(ModelError, match=r"(?s)module 'first' is a copy of a.*force=True"):
            call(twin)
        assert torch.equal(twin(X), model(X))


@every_copy
def test_a_forced_reset_takes_the_branches_off(model, entries, copied):
    twin, plain = copied(model), Model()
    assert lora_mmap.reset(twin, force=True) is True
    assert torch.equal(twin(X), plain(X))
    assert {name: type(module) for name, module in twin.named_modules()} == {
        name: type(module) for name, module in plain.named_modules()
    }
    assert {name: set(vars(module)) for name, module in twin.named_modules()} == {
        name: set(vars(module)) for name, module in plain.named_modules()
    }
    assert lora_mmap.reset(twin) is False
    assert_computes(composed(twin, entries[1:]), entries[1:])
    assert_computes(model, entries)


@every_copy
def test_copies_have_factors_of_their_own(model, entries, copied):
    twin = copied(model)
    lora_mmap.set_lora_strength_v2(model, -2.0)
    assert_computes(model, scaled(entries, -2.0))
    assert_computes(twin, entries)
    lora_mmap.reset(model)
    assert torch.equal(model(X), Model()(X))
    assert_computes(twin, entries)


@every_copy
def test_a_copy_of_a_reset_model_is_plain(model, copied):
    lora_mmap.reset(model)
    assert b"lora_mmap" not in pickle.dumps(model)
    twin = copied(model)
    assert torch.equal(twin(X), Model()(X))
    assert lora_mmap.reset(twin) is False


def test_the_state_dict_has_nothing_of_ours(model, entries):
    plain = Model()
    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in plain.named_buffers()]


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
def test_other_weights_are_loaded_below_the_branches(model, entries, assign):
    before = model(X)
    other = {
        name: value + 1 if value.dtype == torch.int8 else value * 1.5 for name, value in Model().state_dict().items()
    }
    model.load_state_dict(other, assign=assign)
    plain = Model()
    plain.load_state_dict(other)
    expected = in_float64(plain, entries, X)
    torch.testing.assert_close(model(X).double(), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(X), before)
    lora_mmap.set_lora_strength_v2(model, 0.5)
    torch.testing.assert_close(model(X).double(), in_float64(plain, scaled(entries, 0.5), X), rtol=1e-4, atol=1e-4)
    assert lora_mmap.reset(model)
    assert torch.equal(model(X), plain(X))


CASTS = {
    "half": (lambda model: model.half(), torch.float16),
    "to": (lambda model: model.to(torch.bfloat16), torch.bfloat16),
    "to of each": (lambda model: [child.to(torch.float16) for child in model.children()], torch.float16),
}


@pytest.mark.parametrize(("cast", "dtype"), CASTS.values(), ids=CASTS)
def test_a_conversion_leaves_the_factors(model, entries, cast, dtype):
    before = [factor.clone() for factor in factors_of(model)]
    cast(model)
    assert model.first.scale.dtype == dtype
    assert all(map(torch.equal, factors_of(model), before))
    assert {factor.dtype for factor in factors_of(model)} == {torch.float32}
    coarse = 20 * torch.finfo(dtype).eps
    assert_computes(model, entries, coarse)
    lora_mmap.set_lora_strength_v2(model, -0.5)
    assert_computes(model, scaled(entries, -0.5), coarse)
    assert lora_mmap.reset(model)
    assert torch.equal(model(X.to(dtype)), Model().to(dtype)(X.to(dtype)))


def test_factors_move_with_their_module(model):
    model.inner.to("meta")
    devices = {module: {factor.device.type for factor in factors_of(model.get_submodule(module))} for module in BESIDE}
    assert devices == {"first": {"cpu"}, "inner.second": {"meta"}}
    assert lora_mmap.reset(model)
    assert factors_of(model) == []
    assert type(model.inner.second) is type(Model().inner.second)


def test_an_input_of_another_dtype(entries):
    """The branch computes in the dtype of its input."""
    model = Model(torch.bfloat16)
    x = X.bfloat16()
    before = model.first(x)
    composed(model, entries)
    assert {factor.dtype for factor in factors_of(model)} == {torch.bfloat16}
    after = model.first(x)
    assert after.dtype == torch.bfloat16
    assert not torch.allclose(after, before)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.first(x), after, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("first", [True, False], ids=["composed there", "composed outside"])
def test_inference_mode(entries, first):
    """What is composed inside can be changed outside and the other way round, and gradients go through it."""
    model = Model()
    with torch.inference_mode(first):
        composed(model, entries)
        assert_computes(model, entries)
    for multiplier, inside in ((-0.5, not first), (2.0, first), (1.0, not first)):
        with torch.inference_mode(inside):
            lora_mmap.set_lora_strength_v2(model, multiplier)
            assert_computes(model, scaled(entries, multiplier))
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    wide = X.double().requires_grad_()
    in_float64(Model(), entries, wide).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-3, atol=1e-3)
    with torch.inference_mode(not first):
        assert lora_mmap.reset(model)
    assert torch.equal(model(X), Model()(X))


def test_a_default_device_and_dtype_change_nothing(entries):
    """Neither for factors from files nor for those that are made from a Kronecker product."""
    kronecker = {"lokr_w1": torch.randn(7, 4), "lokr_w2": torch.randn(10, 12) / 4}
    tensors = {f"lycoris_first.{key}": value for key, value in kronecker.items()} | {
        "lycoris_first.alpha": torch.ones(())
    }
    listed = [*((made.path, strength) for made, strength in entries), (tensors, 0.5)]
    model, other = Model(), Model()
    lora_mmap.compose(model, listed, strict=True)
    delta = 0.5 * torch.kron(*kronecker.values()).double()
    torch.testing.assert_close(
        model.first(X).double(), composed(Model(), entries).first(X) + X.double() @ delta.t(), rtol=1e-4, atol=1e-4
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            lora_mmap.compose(other, listed, strict=True)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(other(X), model(X))


def test_a_subclass_that_somebody_makes_of_it_is_left(model, entries):
    """As parametrizing or sharding a module does."""
    ours = type(model.first)
    theirs = type("Theirs", (ours,), {"extra_repr": lambda self: "theirs"})
    model.first.__class__ = theirs
    assert_computes(model, entries)
    assert lora_mmap.reset(model)
    assert type(model.first) is theirs
    assert torch.equal(model(X), Model()(X))
    assert_computes(composed(model, entries[1:]), entries[1:])
    model.first.__class__ = ours
    assert lora_mmap.reset(model)
    assert type(model.first) is type(Model().first)
    assert torch.equal(model(X), Model()(X))


def test_a_module_that_left_the_model_is_reset_too(model):
    leaving = model.first
    model.first = torch.nn.Identity()
    assert lora_mmap.reset(model)
    assert torch.equal(leaving(X), Model().first(X))
    assert type(leaving) is type(Model().first)


def test_a_module_that_died_is_forgotten(entries):
    model = Model()
    lora_mmap.compose(model, [(made.path, strength) for made, strength in entries])
    gone = weakref.ref(model.first)
    model.first = torch.nn.Identity()
    lora_mmap.set_lora_strength_v2(model, 0.5)  # sees what the model is now
    gc.collect()
    assert gone() is None
    lora_mmap.set_lora_strength_v2(model, 0.7)
    assert lora_mmap.reset(model)
    assert torch.equal(model.inner.second(X.repeat(1, 2)[:, :70]), Model().inner.second(X.repeat(1, 2)[:, :70]))


def test_nothing_keeps_a_composed_model_alive(entries):
    model = composed(Model(), entries)
    dying = [weakref.ref(model), weakref.ref(model.first), *map(weakref.ref, factors_of(model))]
    assert len(dying) == 6
    del model
    gc.collect()
    assert [reference() for reference in dying] == [None] * 6


@pytest.mark.parametrize("restore", ["auto", "backup"])
def test_nothing_keeps_the_factors_after_a_reset(entries, restore):
    model = Model()
    lora_mmap.compose(model, [(made.path, strength) for made, strength in entries], restore=restore)
    dying = [*map(weakref.ref, factors_of(model))]
    lora_mmap.set_lora_strength_v2(model, 0.5)
    lora_mmap.reset(model)
    gc.collect()
    assert [reference() for reference in dying] == [None] * 4
