"""Weights of one row or column, ranks above both sides, tensors of nothing, values at the ends of floats."""

import copy

import numpy as np
import pytest
import torch
from composing import assert_composed, compose_and_hold, every_layer, same_bytes, tensors_for, uses_of
from every_algorithm import ALGORITHMS, RANK, Filled
from torch import nn

import lora_mmap
from bench.accuracy.error import bound
from bench.accuracy.reference import composed
from bench.accuracy.specimens import layer_of
from bench.accuracy.sums import exact
from lora_mmap.errors import AdapterError, FusionOverflowError

ON_MATRICES = [name for name, found in ALGORITHMS.items() if name != "normalisation"]


def layers_of(algorithm):
    """Thin and small layers; all of them below the rank in one direction at least."""
    if algorithm.of_embeddings:
        return nn.ModuleDict({"one": nn.Embedding(1, 9), "thin": nn.Embedding(9, 1), "small": nn.Embedding(2, 3)})
    return nn.ModuleDict(
        {
            "row": nn.Linear(9, 1),
            "column": nn.Linear(1, 9),
            "element": nn.Linear(1, 1),
            "small": nn.Linear(3, 2),
            "odd": nn.Conv2d(1, 3, 3),
            "line": nn.Conv1d(3, 1, 2),
            "volume": nn.Conv3d(1, 1, 2),
        }
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ON_MATRICES)
def test_thin_weights_and_ranks_above_both_sides(name, dtype):
    torch.manual_seed(4)
    model = layers_of(ALGORITHMS[name]).to(dtype)
    assert min(model["small"].weight.shape) < RANK
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float32, 3))
    compose_and_hold(model, [(tensors, 0.7)])


@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (17, 33), (129, 16), (5, 250)])
@pytest.mark.parametrize("name", ON_MATRICES)
def test_widths_around_those_of_vector_registers(name, rows, columns):
    algorithm = ALGORITHMS[name]
    torch.manual_seed(5)
    layer = nn.Embedding(rows, columns) if algorithm.of_embeddings else nn.Linear(columns, rows)
    if not algorithm.fits(tuple(layer.weight.shape)):
        layer = nn.Conv2d(columns, rows, (1, 3))
    model = nn.ModuleDict({"layer": layer})
    compose_and_hold(model, [(tensors_for(model, algorithm, Filled(torch.float16, 1)), 1.0)])


@pytest.mark.parametrize("name", ON_MATRICES)
def test_a_tensor_of_no_elements(name, sha256):
    """A rank of 0, a magnitude of nothing: an error that names the tensor, never a silent no-op."""
    model = every_layer(torch.bfloat16)
    before = sha256(model)
    whole = tensors_for(model, ALGORITHMS[name], Filled(torch.float32))
    layer = next(iter(whole)).partition(".")[0]
    own = {key: value for key, value in whole.items() if key.startswith(layer + ".")}
    for key, value in own.items():
        if not key.endswith((".alpha", ".on_input", ".scalar")):
            with pytest.raises(AdapterError, match=layer):
                lora_mmap.compose(model, [({**own, key: value[:0]}, 1.0)])
            assert sha256(model) == before, key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_factor_that_is_not_finite(name, value, sha256):
    model = every_layer(torch.bfloat16)
    before = sha256(model)
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float32))
    spoiled = {key.rpartition(".")[2]: key for key in tensors if not key.endswith((".alpha", ".on_input", ".scalar"))}
    assert spoiled
    for key in spoiled.values():
        bad = tensors[key].clone()
        bad.view(-1)[-1] = value
        with pytest.raises(FusionOverflowError, match=key.partition(".")[0]):
            lora_mmap.compose(model, [({**tensors, key: bad}, 0.5)])
        assert sha256(model) == before, key
    assert lora_mmap.compose(model, [(tensors, 0.5)])
    assert lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_result_beyond_the_range_of_the_weight(name, sha256):
    model = every_layer(torch.float16)
    before = sha256(model)
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float32))
    huge = {key: value * 3e4 if value.dim() and value.is_floating_point() else value for key, value in tensors.items()}
    if name.startswith("DoRA") and "dora_scale" not in " ".join(huge):
        huge = {key: value if "magnitude" not in key else value * 1e4 for key, value in huge.items()}
    with pytest.raises(FusionOverflowError):
        lora_mmap.compose(model, [(huge, 100.0)])
    assert sha256(model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_that_are_subnormal(name, dtype):
    """Their sums are exact to the last subnormal, which is what the contract's ulp is there."""
    model = every_layer(dtype)
    smallest = {torch.float16: 2.0**-22, torch.bfloat16: 2.0**-130, torch.float32: 2.0**-146, torch.float64: 2.0**-1072}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(smallest[dtype] * 8)
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float32, 6))
    strength = 2.0**-14 if dtype is torch.float16 else 0.01
    if dtype is torch.float16 or "DoRA" in name:
        compose_and_hold(model, [(tensors, strength)])
        return
    pristine = copy.deepcopy(model)
    lora_mmap.compose(model, [(tensors, strength)], strict=True)
    assert_composed(model, pristine, [uses_of(tensors, strength)])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_factors_that_are_subnormal(name):
    """Every product may lose what lies below the smallest subnormal; more than that many times it would be flushing.
    DoRA multiplies what was lost by m / |V|, so of it only the bits are compared."""
    model = every_layer(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0**-130)
    tensors = {
        key: value * 2.0**-66 if value.dim() and value.is_floating_point() else value
        for key, value in tensors_for(model, ALGORITHMS[name], Filled(torch.float32, 6)).items()
    }
    pristine, flushed = copy.deepcopy(model), copy.deepcopy(model)
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    if "DoRA" not in name:
        assert_lost_at_most_subnormals(model, pristine, tensors)
    torch.set_flush_denormal(True)
    try:
        lora_mmap.compose(flushed, [(tensors, 1.0)], strict=True)
    finally:
        torch.set_flush_denormal(False)
    for parameter, other in zip(model.parameters(), flushed.parameters(), strict=True):
        assert same_bytes(parameter, other)


def assert_lost_at_most_subnormals(model, pristine, tensors):
    for module, use in uses_of(tensors, 1.0).items():
        for parameter, (start, added) in composed(layer_of(pristine, module), [use]).items():
            fused = model.get_submodule(module).get_parameter(parameter)
            lost = (added.roundings + 1) * np.longdouble(2.0) ** -149
            assert np.all(np.abs(exact(fused) - start - added.value) <= bound(fused, added) + lost), (module, parameter)
