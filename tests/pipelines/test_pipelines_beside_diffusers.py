"""The same file into the same pipeline, by us and by diffusers' load_lora_weights + fuse_lora + unload_lora_weights."""

import copy

import pytest
import torch
from adapter_files import saved_by_diffusers
from component_forwards import forward
from fused_by_diffusers import allowance, coarsest, fused_by_diffusers, load_and_fuse
from kohya_files import TRAINERS, kohya_file
from numerics_bound import assert_one_rounding
from tiny_pipelines import KINDS, parts_of, tiny_pipeline

import lora_mmap

STRENGTH = 0.7
DTYPES = [  # the pipeline's, the file's
    (torch.float32, torch.float32),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
]
# Of what the adapter does to a component's output, in fp32: what roundings of weights come to a few layers on.
OUTPUT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}


def named(dtype):
    return str(dtype).removeprefix("torch.")


def cases(names):
    """Each with every pair of dtypes, the largest model with two."""
    pairs = [(name, *pair) for name in names for pair in (DTYPES[::2] if name == "sdxl" else DTYPES)]
    return [pytest.param(*pair, id=f"{pair[0]}-{named(pair[1])}-file_{named(pair[2])}") for pair in pairs]


def weights_of(parts):
    """{(component, parameter): its value}."""
    return {(component, name): value for component, part in parts.items() for name, value in part.named_parameters()}


def changed(weights, pristine):
    assert weights.keys() == pristine.keys()
    return {name for name, value in weights.items() if not torch.equal(value, pristine[name])}


def layers_of(written, onto=None):
    """{(component, parameter): the layer that belongs there}; ``onto`` takes the place of the first component."""
    renamed = {written.components[0]: onto or written.components[0]}
    return {
        (renamed.get(component, component), f"{module}.weight"): layer
        for component, modules in written.layers.items()
        for module, layer in modules.items()
    }


def assert_same_weights(ours, theirs, pristine, layers, strength, file_dtype):
    """Both within their bounds, and both wrote to those weights and to no others."""
    ours, theirs, pristine = (weights_of(parts) for parts in (ours, theirs, pristine))
    assert changed(theirs, pristine) == set(layers), "the peer is not what this test takes it for"
    assert changed(ours, pristine) == set(layers)
    for name, layer in layers.items():
        our, their, old = ours[name], theirs[name], pristine[name]
        assert_one_rounding(our, old, [(layer.down, layer.up, layer.scale * strength)], ".".join(name))
        bound = allowance(our, their, layer, strength, coarsest(file_dtype, old.dtype))
        excess = ((our.double() - their.double()).abs() - bound).max().item()
        assert excess <= 0, f"{'.'.join(name)}: {excess} beyond the bound"


def assert_same_outputs(ours, theirs, pristine, components, file_dtype):
    for component in components:
        parts = [each[component] for each in (ours, theirs, pristine)]
        tolerance = OUTPUT_TOLERANCE[coarsest(file_dtype, *(value.dtype for value in parts[0].parameters()))]
        our, their, old = (forward(copy.deepcopy(part).float()) for part in parts)
        effect = (their - old).norm()
        assert effect > 1e-2 * old.norm(), f"{component}: an adapter without effect shows nothing"
        assert (our - their).norm() <= tolerance * effect, component


def hashes(parts, sha256):
    return {component: sha256(part) for component, part in parts.items()}


def assert_beside_diffusers(kind, written, dtype, file_dtype, sha256):
    pipeline = tiny_pipeline(kind, dtype)
    ours, pristine = parts_of(kind, pipeline), parts_of(kind, tiny_pipeline(kind, dtype))
    theirs = parts_of(kind, fused_by_diffusers(kind, written, dtype, STRENGTH))

    report = lora_mmap.load_and_fuse_lora(pipeline, written.path, lora_scale=STRENGTH, strict=True)

    assert report
    assert {component for component, of in report.items() if of} == set(written.components)
    assert_same_weights(ours, theirs, pristine, layers_of(written), STRENGTH, file_dtype)
    assert_same_outputs(ours, theirs, pristine, written.components, file_dtype)
    assert lora_mmap.unfuse_lora(pipeline) is True
    assert hashes(ours, sha256) == hashes(pristine, sha256)


@pytest.mark.parametrize(("kind", "dtype", "file_dtype"), cases(KINDS))
def test_files_of_diffusers(kind, dtype, file_dtype, tmp_path, sha256):
    written = saved_by_diffusers(kind, tmp_path, file_dtype)
    assert_beside_diffusers(kind, written, dtype, file_dtype, sha256)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wan_two_experts"])
def test_files_of_diffusers_without_metadata(kind, tmp_path, sha256):
    written = saved_by_diffusers(kind, tmp_path, torch.bfloat16, metadata=False)
    assert_beside_diffusers(kind, written, torch.bfloat16, torch.bfloat16, sha256)


@pytest.mark.parametrize(("trainer", "dtype", "file_dtype"), cases(name for name in TRAINERS if name != "sdxl_alphas"))
def test_files_of_trainers(trainer, dtype, file_dtype, tmp_path, sha256):
    written = kohya_file(trainer, tmp_path, file_dtype)
    assert_beside_diffusers(TRAINERS[trainer].kind, written, dtype, file_dtype, sha256)


def test_files_of_trainers_with_an_alpha_for_each_module(tmp_path, sha256):
    written = kohya_file("sdxl_alphas", tmp_path, torch.float16)
    assert_beside_diffusers("sdxl", written, torch.float16, torch.float16, sha256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
def test_a_file_for_each_expert_of_wan(dtype, tmp_path, sha256):
    """As diffusers, the second expert gets what ``load_into_transformer_2`` was said for, and only that."""
    kind = "wan_two_experts"
    first = saved_by_diffusers(kind, tmp_path / "high_noise", seed=1)
    second = saved_by_diffusers(kind, tmp_path / "low_noise", seed=2)
    pipeline, peer = tiny_pipeline(kind, dtype), fused_by_diffusers(kind, first, dtype, STRENGTH)
    load_and_fuse(peer, second, 1.25, into_transformer_2=True)
    ours, theirs, pristine = (parts_of(kind, each) for each in (pipeline, peer, tiny_pipeline(kind, dtype)))

    lora_mmap.load_and_fuse_lora(pipeline, first.path, "high", lora_scale=STRENGTH)
    assert sha256(ours["transformer_2"]) == sha256(pristine["transformer_2"])
    lora_mmap.load_and_fuse_lora(pipeline, second.path, "low", lora_scale=1.25, load_into_transformer_2=True)

    for component, written, strength in (("transformer", first, STRENGTH), ("transformer_2", second, 1.25)):
        one = [{**pristine, component: each[component]} for each in (ours, theirs)]
        assert_same_weights(*one, pristine, layers_of(written, component), strength, torch.float32)
    assert_same_outputs(ours, theirs, pristine, ["transformer", "transformer_2"], torch.float32)
    assert lora_mmap.unfuse_lora(pipeline) is True
    assert hashes(ours, sha256) == hashes(pristine, sha256)
