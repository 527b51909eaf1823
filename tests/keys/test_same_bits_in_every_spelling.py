"""One adapter as kohya, diffusers, PEFT, Black Forest Labs and ComfyUI write it: the same bits in the same model, in
models with projections apart and together, and the right ones."""

import copy

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


def written(folder, name, trained):
    """The adapter's files, and the adapter by diffusers' modules."""
    split, _ = reduced_models.build(name, "split")
    together = "fused" if name == "qwen_image" else "published"
    stacks = reduced_models.build(name, together)[1]
    adapter = trained(matrices(split), stacks)
    homes = {form: reduced_models.build(name, form)[1] for form in {"split", *reduced_models.FORMS[name]}}
    files = {}
    for dialect, names in SPELLINGS[name]:
        modules = adapter if names == "split" else one_adapter.stacked(adapter, homes[names])
        files[dialect, names] = one_adapter.write(folder / f"{dialect}_{names}", dialect, modules)
    return files, adapter


def state(model):
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("trained", [one_adapter.shared, one_adapter.own], ids=["shared", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_same_bits(tmp_path, name, form, dtype, trained, sha256):
    files, adapter = written(tmp_path, name, trained)
    model, homes = reduced_models.build(name, form)
    model.to(dtype)
    pristine, before = copy.deepcopy(model), sha256(model)
    results = {}
    for spelling, path in files.items():
        report = lora_mmap.compose(model, [(path, STRENGTH)], strict=True)
        assert report
        results[spelling] = state(model)
        assert lora_mmap.reset(model) is True
        assert sha256(model) == before
    first, *others = results.values()
    for spelling, other in zip(list(results)[1:], others, strict=True):
        differing = [key for key in first if not torch.equal(first[key], other[key])]
        assert not differing, spelling
    model.load_state_dict(first)
    for module, home in homes.items():
        pair = adapter[module]
        assert not torch.equal(home.of(model), home.of(pristine)), module
        terms = [(pair.down, pair.up, STRENGTH * pair.scale)]
        assert_one_rounding(home.of(model), home.of(pristine), terms, module)
    used = {f"{home.module}.weight" for home in homes.values()}
    assert all(torch.equal(first[key], value) for key, value in pristine.state_dict().items() if key not in used)


@pytest.mark.parametrize("trained", [one_adapter.shared, one_adapter.own], ids=["shared", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", reduced_models.FORMS)
def test_same_bits_in_every_form_of_the_model(tmp_path, name, dtype, trained):
    """Row by row, a weight gets the same whether its model has it alone or in a stack."""
    files, _ = written(tmp_path, name, trained)
    found = []
    for form in reduced_models.FORMS[name]:
        model, homes = reduced_models.build(name, form)
        model.to(dtype)
        for path in files.values():
            lora_mmap.compose(model, [(path, STRENGTH)], strict=True)
            found.append({module: home.of(model).clone() for module, home in homes.items()})
            lora_mmap.reset(model)
    for other in found[1:]:
        assert [module for module in other if not torch.equal(other[module], found[0][module])] == []
