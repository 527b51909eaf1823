"""Copies of models with adapters in them: what takes the adapters out stays with the original, so copies are refused
until somebody says that their weights are pristine as they are. What a composed model saves is plain."""

import copy
import io
import pickle

import pytest
import torch
from adapter_tensors import adapter_for, keyed
from safetensors.torch import load_file, save_file
from torch import nn
from undo_models import all_bits
from undo_tiers import every_tier, one_of_each_tier

import lora_mmap
from lora_mmap.errors import ModelError


class Small(nn.Module):
    """Of the importable kind, which can be pickled."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(23, 37)
        self.block = nn.Sequential(nn.Linear(37, 29, bias=False), nn.ReLU(), nn.Linear(29, 8))
        self.conv = nn.Conv2d(5, 7, 3)


MODULES = ["first", "block.0", "conv"]


@pytest.fixture
def pristine():
    torch.manual_seed(5)
    return Small()


@pytest.fixture
def model(pristine, tier, tmp_path):
    found = copy.deepcopy(pristine)
    lora_mmap.compose(found, [(keyed(adapter_for(found, MODULES)), 1.0)], **tier.arguments(found, tmp_path))
    return found


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": pickled, "torch.save": saved}
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


def refused(model, *modules):
    """compose, strengths and reset raise ModelError and change nothing."""
    before = all_bits(model)
    adapter = keyed(adapter_for(model, modules, seed=3))
    for call in (
        lora_mmap.reset,
        lambda model: lora_mmap.compose(model, [(adapter, 1.0)]),
        lambda model: lora_mmap.compose(model, [(adapter, 1.0)], restore="none"),
        lambda model: lora_mmap.compose(model, []),
    ):
        with pytest.raises(ModelError, match=r"(?s)copy of a.*force=True"):
            call(model)
    assert_bits(model, before)


def usable(model, *modules):
    """Composing and resetting work, and end where they began."""
    before = all_bits(model)
    assert lora_mmap.compose(model, [(keyed(adapter_for(model, modules, seed=3)), 1.0)])
    assert lora_mmap.reset(model)
    assert_bits(model, before)


def assert_bits(model, expected):
    assert [name for name, bits in all_bits(model).items() if not torch.equal(bits, expected[name])] == []


@every_copy
@every_tier
def test_a_copy_is_refused_until_forced(model, tier, copied):
    twin = copied(model)
    composed = all_bits(model)
    refused(twin, *MODULES)
    refused(twin, *MODULES)
    assert lora_mmap.reset(twin, force=True)
    assert_bits(twin, composed)
    assert lora_mmap.reset(twin) is False
    usable(twin, *MODULES)


@every_copy
@every_tier
def test_the_original_does_not_care(model, pristine, tier, copied):
    composed = all_bits(model)
    twin = copied(model)
    lora_mmap.set_lora_strength_v2(model, 0.5)
    lora_mmap.set_lora_strength_v2(model, 1.0)
    assert_bits(model, composed)
    assert lora_mmap.reset(model)
    assert_bits(model, all_bits(pristine))
    assert_bits(twin, composed)
    refused(twin, *MODULES)
    usable(model, *MODULES)


@every_copy
@every_tier
def test_a_copy_of_a_pristine_model_is_pristine(model, tier, copied):
    lora_mmap.reset(model)
    twin = copied(model)
    assert lora_mmap.reset(twin) is False
    usable(twin, *MODULES)
    usable(model, *MODULES)


@every_copy
@one_of_each_tier
def test_a_copy_of_a_committed_model_is_pristine(pristine, tier, copied):
    lora_mmap.compose(pristine, [(keyed(adapter_for(pristine, MODULES)), 1.0)], restore="none")
    usable(copied(pristine), *MODULES)


@every_copy
@one_of_each_tier
def test_a_copy_of_a_part(model, tier, copied):
    """Of a child with adapters in it, and of the one without."""
    assert isinstance(copied(model.block), nn.Sequential)
    refused(copied(model.block), "0")
    refused(nn.Sequential(copied(model.first)), "0")
    usable(nn.Sequential(copied(model.block[2])), "0")


@every_copy
@one_of_each_tier
def test_a_copy_of_what_it_is_part_of(model, tier, copied):
    """A pipeline or wrapper around the model: through it, and through the model in it."""
    parent = nn.Sequential(model)
    twin = copied(parent)
    refused(twin, "0.first")
    refused(twin[0], "first")
    assert lora_mmap.reset(twin[0], force=True)
    usable(twin[0], "first")
    usable(twin, "0.first")


@every_copy
@one_of_each_tier
def test_a_copy_put_into_another_model(pristine, model, tier, copied):
    """A copied child in the place of a module of a model that has no adapters, also of one that we know already."""
    usable(pristine, *MODULES)
    pristine.block = copied(model.block)
    refused(pristine, "first")
    assert lora_mmap.reset(pristine, force=True)
    usable(pristine, *MODULES)


@one_of_each_tier
def test_a_copy_of_a_copy(model, tier):
    twin = pickled(copy.deepcopy(model))
    refused(twin, *MODULES)
    lora_mmap.reset(twin, force=True)
    usable(copy.deepcopy(twin), *MODULES)


@one_of_each_tier
def test_a_shallow_copy_shares_the_weights(model, pristine, tier):
    """Another model object over weights that adapters are in: they come out through the one they went in through."""
    twin = copy.copy(model)
    with pytest.raises(ModelError):
        lora_mmap.compose(twin, [(keyed(adapter_for(twin, MODULES, seed=3)), 1.0)])
    assert lora_mmap.reset(model)
    assert_bits(twin, all_bits(pristine))


@every_tier
def test_the_state_dict_is_plain(model, pristine, tier, tmp_path):
    """It has the composed weights under the names there always were, loads anywhere, and is no copy of a model."""
    state = model.state_dict()
    assert list(state) == list(pristine.state_dict())
    save_file(state, tmp_path / "composed.safetensors")
    fresh = Small()
    fresh.load_state_dict(load_file(tmp_path / "composed.safetensors"))
    assert_bits(fresh, all_bits(model))
    usable(fresh, *MODULES)


@one_of_each_tier
def test_a_pickle_needs_nothing_of_ours(model, tier):
    """It loads where this package is not installed."""
    modules = set()

    class Recording(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module.split(".")[0])
            return super().find_class(module, name)

    Recording(io.BytesIO(pickle.dumps(model))).load()
    assert "torch" in modules
    assert "lora_mmap" not in modules
