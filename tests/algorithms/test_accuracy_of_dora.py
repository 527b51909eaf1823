"""DoRA's two norms and two meanings of a strength, told by what must hold of the result and not by a formula."""

import copy

import pytest
import torch
from adapter_tensors import factors
from composing import every_layer
from every_algorithm import ALGORITHMS, Filled, embedding, lora, peft
from torch import nn

import lora_mmap

# Each: layer, ending of the magnitude's key, its shape by the weight's, and the axes that its norm is over.
AXES = {
    "[out, 1]": ("inner", "dora_scale", lambda s: (s[0], 1), (1,)),
    "[out]": ("inner", "dora_scale", lambda s: (s[0],), (1,)),
    "[1, in]": ("inner", "dora_scale", lambda s: (1, s[1]), (0,)),
    "convolution [out, 1, 1, 1]": ("image", "dora_scale", lambda s: (s[0], 1, 1, 1), (1, 2, 3)),
    "convolution [out]": ("image", "dora_scale", lambda s: (s[0],), (1, 2, 3)),
    "convolution [1, in, 1, 1]": ("image", "dora_scale", lambda s: (1, s[1], 1, 1), (0, 2, 3)),
    "one dimension [1, in, 1]": ("line", "dora_scale", lambda s: (1, s[1], 1), (0, 2)),
    "three dimensions [1, in, 1, 1, 1]": ("volume", "dora_scale", lambda s: (1, s[1], 1, 1, 1), (0, 2, 3, 4)),
    "1x1 convolution [1, in, 1, 1]": ("point", "dora_scale", lambda s: (1, s[1], 1, 1), (0, 2, 3)),
    "PEFT [out]": ("inner", "lora_magnitude_vector", lambda s: (s[0],), (1,)),
    "older PEFT [out]": ("inner", "lora_magnitude_vector.weight", lambda s: (s[0],), (1,)),
    "PEFT convolution [1, out, 1, 1]": ("image", "lora_magnitude_vector", lambda s: (1, s[0], 1, 1), (1, 2, 3)),
    "PEFT embedding [dim]": ("table", "lora_magnitude_vector", lambda s: (s[1],), (0,)),
}


def adapter(model, layer, ending, shape_of_magnitude):
    """(tensors, magnitude) on one layer."""
    filled = Filled(torch.float32, 5)
    shape = tuple(model.get_submodule(layer).weight.shape)
    make = embedding if layer == "table" else peft if "lora_" in ending else lora
    magnitude = filled.magnitude(*shape_of_magnitude(shape))
    own = make(shape, filled) | {ending: magnitude}
    return {f"{layer}.{key}": value for key, value in own.items()}, magnitude


def norms(weight, axes):
    return weight.detach().double().pow(2).sum(axes).sqrt()


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", AXES)
def test_the_norms_become_the_magnitudes(case, channels_last):
    layer, ending, shape, axes = AXES[case]
    model = every_layer(torch.float32, channels_last)
    weight = model.get_submodule(layer).weight
    tensors, magnitude = adapter(model, layer, ending, shape)
    assert not torch.allclose(norms(weight, axes), magnitude.double().flatten(), rtol=1e-2)
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    torch.testing.assert_close(norms(weight, axes), magnitude.double().flatten(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", [name for name in AXES if "PEFT" in name])
def test_of_peft_the_norms_are_the_magnitudes_at_any_strength(case):
    """PEFT's scaling turns the weight further and keeps its norms."""
    layer, ending, shape, axes = AXES[case]
    model = every_layer(torch.float32)
    pristine = copy.deepcopy(model).get_submodule(layer).weight
    tensors, magnitude = adapter(model, layer, ending, shape)
    found = []
    for strength in (0.25, 1.0, -1.5):
        lora_mmap.compose(model, [(tensors, strength)], strict=True)
        weight = model.get_submodule(layer).weight.detach().clone()
        torch.testing.assert_close(norms(weight, axes), magnitude.double().flatten(), rtol=1e-6, atol=0)
        found.append(nn.functional.cosine_similarity(weight.flatten(), pristine.flatten(), dim=0).item())
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("case", [name for name in AXES if "PEFT" not in name])
def test_of_the_others_the_strength_is_a_part_of_the_way(case):
    layer, ending, shape, _ = AXES[case]
    model = every_layer(torch.float64)
    weight = model.get_submodule(layer).weight
    pristine = weight.detach().clone()
    tensors, _ = adapter(model, layer, ending, shape)
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    whole = weight.detach() - pristine
    for strength in (0.25, -0.5, 2.0):
        lora_mmap.compose(model, [(tensors, strength)], strict=True)
        torch.testing.assert_close(weight.detach() - pristine, strength * whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("side", ["rows", "input channels"])
def test_a_square_weight_is_no_riddle(side):
    model = nn.Sequential(nn.Linear(6, 6))
    filled = Filled(torch.float32, 2)
    tensors = {f"0.{key}": value for key, value in ALGORITHMS[f"DoRA, {side}"].tensors((6, 6), filled).items()}
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    axis = 1 if side == "rows" else 0
    wanted = tensors["0.dora_scale"].double().flatten()
    torch.testing.assert_close(norms(model[0].weight, axis), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_or_channel_of_zeros_stays_one(axis):
    model = nn.Sequential(nn.Linear(8, 6, bias=False))
    down, up = factors(6, 8)
    with torch.no_grad():
        index = (2, slice(None)) if axis == 1 else (slice(None), 2)
        model[0].weight[index] = 0
        (up if axis == 1 else down)[index] = 0
    magnitude = torch.ones(6, 1) if axis == 1 else torch.ones(1, 8)
    tensors = {"0.lora_down.weight": down, "0.lora_up.weight": up, "0.dora_scale": magnitude}
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    assert torch.equal(model[0].weight[index], torch.zeros_like(model[0].weight[index]))
    assert torch.isfinite(model[0].weight).all()


def test_every_adapter_starts_from_the_pristine_weight():
    """Two DoRAs add up what each of them alone changes; neither sees the other."""
    model = every_layer(torch.float64)
    weight = model.inner.weight
    pristine = weight.detach().clone()
    changes, entries = [], []
    for seed in (1, 2):
        made = ALGORITHMS["DoRA, rows"].tensors(tuple(weight.shape), Filled(torch.float32, seed))
        entries.append(({f"inner.{key}": value for key, value in made.items()}, 0.5))
        lora_mmap.compose(model, entries[-1:], strict=True)
        changes.append(weight.detach() - pristine)
    lora_mmap.compose(model, entries, strict=True)
    torch.testing.assert_close(weight.detach() - pristine, changes[0] + changes[1], rtol=1e-12, atol=1e-14)
