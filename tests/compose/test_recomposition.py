"""One composition after another: the second is as if the first had never been, unless that was committed."""

import copy

import torch
from adapter_tensors import adapter_for, keyed
from composed_weights import ALL, LINEARS, assert_terms, weights_equal

import lora_mmap


def test_composing_replaces_and_restores_what_only_the_first_touched(small):
    model, fresh, pristine = small.to(torch.float16), None, copy.deepcopy(small)
    fresh = copy.deepcopy(model)
    one, two = adapter_for(model, ["first", "conv"], seed=1), adapter_for(model, ["conv", "second"], seed=2)
    lora_mmap.compose(model, [(keyed(one), 1.0)])
    lora_mmap.compose(model, [(keyed(two), 1.0)])
    lora_mmap.compose(fresh, [(keyed(two), 1.0)])
    assert weights_equal(model, fresh)
    assert torch.equal(model.first.weight, pristine.first.weight)
    lora_mmap.reset(model)
    assert weights_equal(model, pristine)


def test_a_thousand_changes_do_not_drift(small, sha256):
    model = small.to(torch.float16)
    before = sha256(model)
    sources = [lora_mmap.open_adapter(keyed(adapter_for(model, LINEARS, seed=i))) for i in range(3)]
    for step in range(200):
        lora_mmap.compose(model, [(sources[step % 3], 0.1 * (step % 7) - 0.3)])
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_composing_nothing_takes_out_what_was_there(small, sha256):
    before = sha256(small)
    lora_mmap.compose(small, [(keyed(adapter_for(small, ALL)), 1.0)])
    report = lora_mmap.compose(small, [])
    assert not report
    assert sha256(small) == before
    assert lora_mmap.reset(small) is False


def test_restore_none_commits(small, sha256):
    pristine = copy.deepcopy(small)
    pair, other = adapter_for(small, ["first"], seed=1), adapter_for(small, ["first"], seed=2)
    report = lora_mmap.compose(small, [(keyed(pair), 1.0)], restore="none")
    assert report.to_dict()["restore"] == {}
    committed, midway = sha256(small), copy.deepcopy(small)
    assert_terms(small, pristine, {"first.weight": [(*pair["first"], 1.0)]})
    assert lora_mmap.reset(small) is False
    assert lora_mmap.set_lora_strength_v2(small, 0.0) is None
    assert sha256(small) == committed
    lora_mmap.compose(small, [(keyed(other), 1.0)])
    assert_terms(small, midway, {"first.weight": [(*other["first"], 1.0)]})
    assert lora_mmap.reset(small) is True
    assert sha256(small) == committed


def test_restore_none_replaces_the_composition_before_it(small):
    fresh = copy.deepcopy(small)
    one, two = keyed(adapter_for(small, ["first", "conv"], seed=1)), keyed(adapter_for(small, ["first"], seed=2))
    lora_mmap.compose(small, [(one, 1.0)])
    lora_mmap.compose(small, [(two, 1.0)], restore="none")
    lora_mmap.compose(fresh, [(two, 1.0)])
    assert weights_equal(small, fresh)
