"""Weights that were moved: parameters that share memory, models that share it, and offloading as accelerate does it."""

import pytest
import torch
from adapter_tensors import factors, keyed
from torch import nn
from undo_models import all_bits
from undo_moves import CHANGES, Lent, Twins, assert_bits, pair_for, round_trip
from undo_tiers import every_tier, one_of_each_tier

import lora_mmap
from lora_mmap.errors import ModelError


@one_of_each_tier
def test_two_parameters_on_one_memory_that_a_move_parts(tier, tmp_path, sha256):
    """Both have the adapters then, and there is one way back: refused until they are one again."""
    model = Twins()
    model.c.weight = nn.Parameter(model.a.weight.data)
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    round_trip(model)
    before = sha256(model)
    for change in CHANGES.values():
        with pytest.raises(ModelError, match=r"'a\.weight'.*apart from 'c\.weight'.*tie them again"):
            change(model, pair_for(model, "b"))
        assert sha256(model) == before
    model.c.weight.data = model.a.weight.data
    lora_mmap.set_lora_strength_v2(model, 0.5)
    assert lora_mmap.reset(model)
    assert_bits(model, pristine)


@one_of_each_tier
def test_part_of_a_weight_that_a_move_parts(tier, tmp_path):
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = all_bits(model)
    lora_mmap.compose(model, [(keyed({"whole": factors(12, 9)}), 1.0)], **tier.arguments(model, tmp_path))
    round_trip(model)
    with pytest.raises(ModelError, match=r"'whole\.weight'.*apart from 'part\.weight'"):
        lora_mmap.reset(model)
    model.part.weight.data = model.whole.weight.data[:4]
    assert lora_mmap.reset(model)
    assert_bits(model, pristine)


def sliced(model):
    """Some columns of a wider matrix, and some input channels of more."""
    model.first.weight.data = torch.randn(37, 40)[:, 5:28]
    model.conv.weight.data = torch.randn(7, 9, 3, 3)[:, 2:7]


def turned(model):
    model.first.weight.data = torch.randn(23, 37).t()


@pytest.mark.parametrize("spread", [sliced, turned])
@every_tier
def test_rows_that_come_closer_together(small, spread, tier, tmp_path):
    """What is part of a larger tensor is alone after a move, its rows one after the other."""
    spread(small)
    pristine, strides = all_bits(small), small.first.weight.stride()
    adapter = pair_for(small, "first", "second", "conv")
    lora_mmap.compose(small, [(adapter, 1.0)], **tier.arguments(small, tmp_path))
    for name, parameter in small.named_parameters():
        if name != "conv.bias":
            parameter.data = parameter.data.contiguous()
    assert small.first.weight.stride() != strides
    lora_mmap.set_lora_strength_v2(small, 0.5)
    lora_mmap.reset(small)
    assert_bits(small, pristine)


@one_of_each_tier
def test_one_put_on_the_memory_of_another(tier, tmp_path, sha256):
    """Also where both hold the same: undone once, they would be undone for both."""
    model = Twins()
    model.b.weight.data = model.a.weight.data.clone()
    adapter = keyed(dict.fromkeys(("a", "b"), factors(50, 70)))
    lora_mmap.compose(model, [(adapter, 1.0)], **tier.arguments(model, tmp_path))
    model.b.weight.data = model.a.weight.data
    before = sha256(model)
    with pytest.raises(ModelError, match=r"'b\.weight'.*found it on the memory of 'a\.weight'"):
        lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("inference", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@one_of_each_tier
def test_moved_where_nothing_is_recorded(tier, inference, tmp_path):
    """Pipelines run their models without gradients, hooks included."""
    model = Twins()
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    with inference():
        round_trip(model)
    lora_mmap.set_lora_strength_v2(model, 0.5)
    with inference():
        round_trip(model)
        assert lora_mmap.reset(model)
    assert_bits(model, pristine)


@every_tier
def test_another_model_in_the_old_memory(tier, tmp_path):
    """It is nobody's business what had lain there; what lies elsewhere now is still taken."""
    model, other = Twins(), Twins()
    lent = Lent(model.a.weight)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    around = nn.Sequential(model)
    round_trip(model)
    other.a.weight.data = torch.from_numpy(lent.memory)
    assert lora_mmap.compose(other, [(pair_for(other), 1.0)])
    assert lora_mmap.reset(other)
    with pytest.raises(ModelError, match="through another model object"):
        lora_mmap.compose(around, [(keyed({"0.a": factors(50, 70)}), 1.0)])
    assert lora_mmap.reset(model)
    assert lora_mmap.compose(around, [(keyed({"0.a": factors(50, 70)}), 1.0)])


@every_tier
def test_a_module_under_another_name(tier, tmp_path):
    """The parameter counts, wherever in the model it is."""
    model = Twins()
    pristine = all_bits(model)
    lora_mmap.compose(model, [(pair_for(model), 1.0)], **tier.arguments(model, tmp_path))
    model.a, model.b = model.b, model.a
    round_trip(model)
    lora_mmap.reset(model)
    assert_bits(model, {**pristine, "a.weight": pristine["b.weight"], "b.weight": pristine["a.weight"]})


@one_of_each_tier
def test_moved_while_a_composition_is_pending(tier, tmp_path):
    """On the CPU nothing is pending when the call returns."""
    model = Twins()
    pristine = all_bits(model)
    report = lora_mmap.compose(model, [(pair_for(model), 1.0)], non_blocking=True, **tier.arguments(model, tmp_path))
    round_trip(model)
    assert report.wait()
    assert lora_mmap.reset(model)
    assert_bits(model, pristine)


class Offloaded:
    """A hook around forward, as accelerate has them, that brings a model to new memory before and after."""

    def __init__(self, model):
        hooks = pytest.importorskip("accelerate.hooks")

        class Moves(hooks.ModelHook):
            def pre_forward(self, module, *args, **kwargs):
                round_trip(module)
                return args, kwargs

            def post_forward(self, module, output):
                round_trip(module)
                return output

        hooks.add_hook_to_module(model, Moves())


@every_tier
def test_load_generate_unfuse(small, tier, tmp_path):
    Offloaded(small.first)
    pristine, x = all_bits(small), torch.randn(2, 23)
    plain = small.first(x)
    adapter = pair_for(small, "first", "second", "conv")
    lora_mmap.compose(small, [(adapter, 1.0)], **tier.arguments(small, tmp_path))
    assert not torch.equal(small.first(x), plain)
    lora_mmap.set_lora_strength_v2(small, 0.5)
    assert not torch.equal(small.first(x), plain)
    lora_mmap.reset(small)
    assert_bits(small, pristine)
    assert torch.equal(small.first(x), plain)


@one_of_each_tier
def test_accelerates_own_offloading(small, tier, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    first, hook = accelerate.cpu_offload_with_hook(small.first, execution_device=torch.device("cpu"))
    pristine = all_bits(small)
    lora_mmap.compose(small, [(pair_for(small, "first", "conv"), 1.0)], **tier.arguments(small, tmp_path))
    first(torch.randn(2, 23))
    hook.offload()
    assert lora_mmap.reset(small)
    assert_bits(small, pristine)
