"""One adapter as kohya, diffusers, PEFT, Black Forest Labs and ComfyUI write it: the same bits in the same model, in
models with projections apart and together, and the right ones."""

import copy
from functools import cache

import pytest
import torch
from numerics_bound import assert_one_rounding

pytest.importorskip("diffusers")

import one_adapter
import reduced_models
from spelled.published import matrices

import lora_mmap

STRENGTH = 0.7
# family -> (dialect of spelled.trainers, whose modules it names)
SPELLINGS = {
    "flux": (
        ("kohya", "published"),
        ("diffusers_transformer", "split"),
        ("onetrainer", "split"),
        ("peft", "split"),
        ("peft", "published"),  # Black Forest Labs' names, as fal and Kontext's trainers save them
        ("comfyui", "published"),
        ("comfyui_kohya_words", "published"),
    ),
    "qwen_image": (
        ("kohya", "split"),
        ("diffusers_transformer", "split"),
        ("peft", "split"),
        ("comfyui", "split"),
        ("lightx2v", "split"),
        ("peft", "fused"),
    ),
    "z_image": (
        ("kohya", "split"),
        ("kohya_two_underscores", "split"),
        ("kohya", "published"),
        ("diffusers_transformer", "split"),
        ("peft", "split"),
        ("comfyui", "split"),  # ai-toolkit
        ("comfyui", "published"),
    ),
    "sdxl": (
        ("kohya", "published"),
        ("kohya", "split"),
        ("diffusers_unet", "split"),
        ("peft", "split"),
        ("peft", "published"),
        ("comfyui", "published"),
    ),
}
CASES = [(name, form) for name, forms in reduced_models.FORMS.items() for form in forms]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The adapter's files of a family by spelling, and the adapter by diffusers' modules."""
    return cache(lambda name, trained: _written(tmp_path_factory.mktemp(name), name, trained))


def _written(folder, name, trained):
    homes = {form: reduced_models.built(name, form)[1] for form in reduced_models.FORMS[name]}
    stacks = homes.get("published") or homes["fused"]
    adapter = trained(matrices(reduced_models.built(name, "split")[0]), stacks)
    files = {}
    for dialect, names in SPELLINGS[name]:
        modules = adapter if names == "split" else one_adapter.stacked(adapter, homes[names])
        files[dialect, names] = one_adapter.write(folder / f"{dialect}_{names}", dialect, modules)
    return files, adapter


def model_of(name, form, dtype):
    model, homes = reduced_models.built(name, form)
    return copy.deepcopy(model).to(dtype), homes


def state(model):
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("trained", [one_adapter.shared, one_adapter.own], ids=["shared", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_same_bits(written, name, form, dtype, trained, sha256):
    files, adapter = written(name, trained)
    model, homes = model_of(name, form, dtype)
    pristine, before = state(model), sha256(model)
    first = None
    for spelling, path in files.items():
        assert lora_mmap.compose(model, [(path, STRENGTH)], strict=True)
        found = state(model)
        assert lora_mmap.reset(model) is True
        assert sha256(model) == before
        first = first or found
        assert [key for key in first if not torch.equal(first[key], found[key])] == [], spelling
    for module, home in homes.items():
        fused, original = home.of(first), home.of(pristine)
        assert not torch.equal(fused, original), module
        pair = adapter[module]
        assert_one_rounding(fused, original, [(pair.down, pair.up, STRENGTH * pair.scale)], module)
    used = {home.weight for home in homes.values()}
    assert [key for key in first if key not in used and not torch.equal(first[key], pristine[key])] == []


@pytest.mark.parametrize("trained", [one_adapter.shared, one_adapter.own], ids=["shared", "own"])
@pytest.mark.parametrize("name", reduced_models.FORMS)
def test_same_bits_in_every_form_of_the_model(written, name, trained):
    """Row by row, a weight becomes the same whether its model has it alone or in a stack."""
    path = next(iter(written(name, trained)[0].values()))
    found = []
    for form in reduced_models.FORMS[name]:
        model, homes = model_of(name, form, torch.bfloat16)
        lora_mmap.compose(model, [(path, STRENGTH)], strict=True)
        found.append({module: home.of(state(model)) for module, home in homes.items()})
    for other in found[1:]:
        assert [module for module in other if not torch.equal(other[module], found[0][module])] == []
