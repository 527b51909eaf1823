"""In place, really: what others hold of a weight stays valid."""

import copy
import gc
import itertools
import weakref

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed
from torch import nn

import lora_mmap
from lora_mmap.errors import ModelError


def looks(model):
    return {
        name: (
            id(parameter),
            parameter.data_ptr(),
            parameter.untyped_storage().data_ptr(),
            parameter.untyped_storage().nbytes(),
            parameter.storage_offset(),
            parameter.shape,
            parameter.stride(),
            parameter.dtype,
            parameter.requires_grad,
            parameter.is_leaf,
        )
        for name, parameter in model.named_parameters()
    }


def test_identity_storage_layout_and_grad_flag_stay(small):
    small.conv.to(memory_format=torch.channels_last)
    small.second.weight.requires_grad_(False)
    before = looks(small)
    adapter = keyed(adapter_for(small, ["first", "second", "conv", "point"]))
    for change in (
        lambda: lora_mmap.compose(small, [(adapter, 1.0)]),
        lambda: lora_mmap.set_lora_strength_v2(small, -0.5),
        lambda: lora_mmap.compose(small, [(adapter, 2.0)]),
        lambda: lora_mmap.reset(small),
    ):
        change()
        assert looks(small) == before


def test_version_counter_tells_of_every_write(small):
    adapter = keyed(adapter_for(small, ["first"]))
    versions = [small.first.weight._version]
    for change in (
        lambda: lora_mmap.compose(small, [(adapter, 1.0)]),
        lambda: lora_mmap.set_lora_strength_v2(small, 0.0),
        lambda: lora_mmap.set_lora_strength_v2(small, 1.0),
        lambda: lora_mmap.reset(small),
    ):
        change()
        versions.append(small.first.weight._version)
    assert all(later > earlier for earlier, later in itertools.pairwise(versions))


def test_autograd_notices_a_weight_changed_after_forward(small):
    out = small.second(small.first(torch.randn(2, 23, requires_grad=True)))
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first", "second"])), 1.0)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_untouched_weights_keep_their_version(small):
    version = small.second.weight._version
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"])), 1.0)])
    assert small.second.weight._version == version


def test_inference_tensors_are_composed_and_restored():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 5))
    pristine = model[0].weight.clone()
    assert lora_mmap.compose(model, [(keyed({"0": factors(5, 6)}), 1.0)])
    assert not torch.equal(model[0].weight, pristine)
    lora_mmap.reset(model)
    assert torch.equal(model[0].weight, pristine)


# torch's own, on the first import of its compiler.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "data parallel"])
def test_a_wrapper_and_its_model_share_one_state(small, wrap, sha256):
    before = sha256(small)
    wrapped = wrap(small)
    adapter = keyed(adapter_for(small, ["first", "conv"]))
    lora_mmap.compose(wrapped, [(adapter, 1.0)], strict=True)
    composed = sha256(small)
    assert composed != before
    lora_mmap.compose(small, [(adapter, 1.0)], strict=True)
    assert sha256(small) == composed
    assert lora_mmap.reset(wrapped) is True
    assert lora_mmap.reset(small) is False
    assert sha256(small) == before


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_model_needs_no_new_graph(small):
    """The compiled graph reads the same storage: the output follows the weights, nothing is compiled again."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    model = nn.Sequential(small.first, small.second)
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(3, 23)
    with torch.no_grad():
        plain = compiled(x)
        lora_mmap.compose(compiled, [(keyed(adapter_for(model, ["0", "1"])), 1.0)], strict=True)
        assert not torch.equal(compiled(x), plain)
        assert torch.equal(compiled(x), model(x))
        lora_mmap.reset(compiled)
        assert torch.equal(compiled(x), plain)
    assert len(graphs) == 1


@pytest.mark.parametrize("change", ["half", "replaced", "transposed"])
def test_a_weight_moved_since_is_not_written(change, sha256):
    model = nn.Sequential(nn.Linear(6, 6, bias=False))
    adapter = keyed({"0": factors(6, 6)})
    lora_mmap.compose(model, [(adapter, 1.0)])
    if change == "half":
        model.half()
    elif change == "replaced":
        model[0].weight = nn.Parameter(torch.randn(6, 6))
    else:
        model[0].weight.data = model[0].weight.data.t()
    now = sha256(model)
    with pytest.raises(lora_mmap.errors.ModelError, match=r"\[compose\] weight '0\.weight'.*moved"):
        lora_mmap.compose(model, [(adapter, 0.5)])
    assert sha256(model) == now
    if change != "transposed":
        with pytest.raises(lora_mmap.errors.ModelError, match=r"\[reset\] weight '0\.weight'.*moved"):
            lora_mmap.reset(model)
        lora_mmap.reset(model, force=True)
        assert sha256(model) == now
        assert lora_mmap.compose(model, [(adapter, 0.5)])


def test_a_layer_replaced_by_its_owner_is_seen(small):
    lora_mmap.check(small, keyed(adapter_for(small, ["first"])))
    small.first = nn.Linear(8, 6)
    assert lora_mmap.compose(small, [(keyed({"first": factors(6, 8)}), 1.0)], strict=True)


def test_two_model_objects_on_the_same_weights(sha256):
    inner = nn.Sequential(nn.Linear(5, 5))
    outer = nn.Sequential(inner)
    before = sha256(inner)
    lora_mmap.compose(inner, [(keyed({"0": factors(5, 5)}), 1.0)])
    composed = sha256(inner)
    with pytest.raises(lora_mmap.errors.ModelError, match=r"\[compose\].*'0\.0\.weight'.*another model"):
        lora_mmap.compose(outer, [(keyed({"0.0": factors(5, 5, seed=9)}), 1.0)])
    assert sha256(inner) == composed
    lora_mmap.reset(inner)
    assert sha256(inner) == before


def test_a_model_dies_with_its_state():
    model = nn.Sequential(nn.Linear(5, 5))
    lora_mmap.compose(model, [(keyed({"0": factors(5, 5)}), 1.0)])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_deepcopy_is_a_model_of_its_own(small, sha256):
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"])), 1.0)])
    twin = copy.deepcopy(small)
    composed = sha256(twin)
    lora_mmap.reset(small)
    assert sha256(twin) == composed
    with pytest.raises(ModelError, match="copy"):
        lora_mmap.reset(twin)
    assert lora_mmap.reset(twin, force=True)
    assert sha256(twin) == composed
    assert lora_mmap.reset(twin) is False
