"""Weights that are tied, overlap, or hold one element twice: fused once, or refused."""

import copy

import pytest
import torch
from adapter_tensors import factors, keyed
from numerics_bound import assert_one_rounding
from torch import nn

import lora_mmap


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(9, 13), nn.Linear(9, 13)
        self.b.weight = self.a.weight
        self.c = self.a


def test_tied_weights_are_fused_once(sha256):
    model = Tied()
    pristine = copy.deepcopy(model)
    before = sha256(model)
    pair = factors(13, 9)
    report = lora_mmap.compose(model, [(keyed({"b": pair}), 1.0)])
    assert_one_rounding(model.a.weight, pristine.a.weight, [(*pair, 1.0)])
    assert report.to_dict()["restore"]["journal"]["modules"] == 1
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_distinct_terms_on_tied_weights_sum(sha256):
    model = Tied()
    pristine = copy.deepcopy(model)
    before = sha256(model)
    one, two = factors(13, 9, seed=1), factors(13, 9, seed=2)
    lora_mmap.compose(model, [(keyed({"a": one, "b": two}), 0.5)])
    assert_one_rounding(model.a.weight, pristine.a.weight, [(*one, 0.5), (*two, 0.5)])
    assert model.a.weight is model.b.weight
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_a_part_of_a_weight_after_the_whole():
    """A module on some rows of another's storage: composed one after the other, either an error or the right sum."""
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = copy.deepcopy(model.whole.weight.detach())
    one, two = factors(12, 9, seed=1), factors(4, 9, seed=2)
    lora_mmap.compose(model, [(keyed({"whole": one}), 1.0)])
    try:
        lora_mmap.compose(model, [(keyed({"part": two}), 1.0)])
    except lora_mmap.errors.ModelError:
        pass
    else:
        assert_one_rounding(model.part.weight, pristine[:4], [(*two, 1.0)])
        assert torch.equal(model.whole.weight[4:], pristine[4:])
    lora_mmap.reset(model)
    assert torch.equal(model.whole.weight, pristine)


def test_a_view_of_a_weight_elsewhere_in_the_model_does_not_block_reset():
    """Two forms of one storage at one address: what was composed through the one can be undone."""
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = model.whole.weight.detach().clone()
    assert lora_mmap.compose(model, [(keyed({"whole": factors(12, 9)}), 1.0)])
    assert lora_mmap.compose(model, [(keyed({"whole": factors(12, 9, seed=2)}), 1.0)])
    assert lora_mmap.reset(model)
    assert torch.equal(model.whole.weight, pristine)


def test_overlapping_weights_in_one_composition_are_refused():
    model = nn.Module()
    model.whole, model.part = nn.Linear(9, 12, bias=False), nn.Linear(9, 4, bias=False)
    model.part.weight = nn.Parameter(model.whole.weight.data[:4])
    pristine = model.whole.weight.detach().clone()
    with pytest.raises(
        lora_mmap.errors.ModelError, match=r"\[compose\].*'whole\.weight' and 'part\.weight'.*separate or fully tied"
    ):
        lora_mmap.compose(model, [(keyed({"whole": factors(12, 9), "part": factors(4, 9)}), 1.0)])
    assert torch.equal(model.whole.weight, pristine)


def test_a_weight_whose_elements_share_memory_is_refused(sha256):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(1, 1).expand(4, 4))
    before = sha256(model)
    with pytest.raises(lora_mmap.errors.ModelError, match=r"\[compose\] weight '0\.weight'.*share"):
        lora_mmap.compose(model, [(keyed({"0": factors(4, 4), "1": factors(4, 4)}), 1.0)])
    assert sha256(model) == before


def test_an_odd_weight_elsewhere_does_not_stand_in_the_way(sha256):
    """A weight that cannot be fused into matters only to an adapter that wants it, also to reset and recompose."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(torch.ones(1, 1).expand(4, 4))
    before = sha256(model)
    for strength in (1.0, 0.5):
        assert lora_mmap.compose(model, [(keyed({"1": factors(4, 4)}), strength)])
    assert lora_mmap.reset(model)
    assert sha256(model) == before
