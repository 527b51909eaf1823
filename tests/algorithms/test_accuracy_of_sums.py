"""Several adapters on one module: terms of all kinds are one sum, whatever their order; taken out bit for bit."""

import copy
import itertools

import pytest
import torch
from composing import (
    assert_composed,
    assert_same_bytes,
    compose_and_hold,
    every_layer,
    same_bytes,
    tensors_for,
    uses_of,
)
from every_algorithm import ALGORITHMS, Filled
from stand_ins import holding
from torch import nn

import lora_mmap
from bench.accuracy.reference import Use

NAMES = list(ALGORITHMS)
DTYPES = [torch.bfloat16, torch.float32]


def adapters(model, *names):
    return [tensors_for(model, ALGORITHMS[name], Filled(torch.float16, seed)) for seed, name in enumerate(names)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_beside_lora_before_and_after(name, dtype):
    model = every_layer(dtype)
    other = "embedding" if ALGORITHMS[name].of_embeddings else "normalisation" if name == "normalisation" else "LoRA"
    first, second = adapters(model, name, other)
    compose_and_hold(model, [(first, 0.8), (second, -0.6)])
    compose_and_hold(model, [(second, -0.6), (first, 0.8)])


@pytest.mark.parametrize("first", range(0, len(NAMES), 2))
def test_three_kinds_together(first):
    """Neighbours in the list, so that each kind meets others; all orders."""
    model = every_layer(torch.bfloat16)
    names = [NAMES[(first + step) % len(NAMES)] for step in (0, 3, 8)]
    entries = list(zip(adapters(model, *names), (1.0, -0.7, 0.4), strict=True))
    for order in itertools.permutations(entries):
        compose_and_hold(model, list(order))


@pytest.mark.parametrize("name", NAMES)
def test_one_adapter_twice_is_its_terms_twice(name):
    model = every_layer(torch.float32)
    (tensors,) = adapters(model, name)
    compose_and_hold(model, [(tensors, 0.7), (tensors, -0.2)])


def test_kinds_mixed_in_one_file():
    model = every_layer(torch.float16)
    kinds = {
        "inner": "LoHa",
        "image": "DoRA, input channels",
        "line": "LoKr",
        "table": "embedding",
        "norm": "normalisation",
    }
    kinds |= {"point": "(IA)3, rows", "volume": "LoCon in Tucker form", "group": "normalisation"}
    tensors = {}
    for seed, (layer, name) in enumerate(kinds.items()):
        tensors |= tensors_for(model, ALGORITHMS[name], Filled(torch.float32, seed), only=[layer])
    compose_and_hold(model, [(tensors, 0.6)])


@pytest.mark.parametrize("name", NAMES)
def test_replacing_an_adapter_or_a_strength_leaves_nothing_behind(name, sha256):
    """The bits of a composition do not depend on what was composed before it."""
    model, fresh = every_layer(torch.bfloat16), every_layer(torch.bfloat16)
    before = sha256(model)
    (tensors,) = adapters(model, name)
    lora_mmap.compose(fresh, [(tensors, 0.3)])
    for step in NAMES[::5]:
        lora_mmap.compose(model, [(adapters(model, step)[0], 1.0)])
    lora_mmap.compose(model, [(tensors, 1.7)])
    lora_mmap.compose(model, [(tensors, 0.3)])
    assert sha256(model) == sha256(fresh) != before
    lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_replaced_parameter_is_the_last_ones_and_others_add_to_it(dtype):
    model = every_layer(dtype)
    filled = Filled(torch.float32, 9)
    first, second = ({"norm.set_weight": filled(13), **lora_on(model, seed)} for seed in (1, 2))
    terms = {"norm.w_norm": filled(13), **lora_on(model, 3)}
    compose_and_hold(model, [(first, 0.2), (terms, 0.5), (second, -0.3)])
    compose_and_hold(model, [(first, 1.0)])


@pytest.mark.parametrize(
    "name", ["LoRA", "LoKr", "(IA)3, rows", "(IA)3, columns", "DoRA, rows", "DoRA, input channels"]
)
def test_what_takes_the_weight_itself_takes_the_replaced_one(name):
    model = every_layer(torch.bfloat16)
    layers = ["inner", "image"]
    value = {
        f"{layer}.set_weight": Filled(torch.float32, 7)(*model.get_submodule(layer).weight.shape) for layer in layers
    }
    value |= lora_on(model, 1, "point")
    terms = tensors_for(model, ALGORITHMS[name], Filled(torch.float16, 2), only=layers)
    compose_and_hold(model, [(terms, 0.7), (value, 0.4)])
    compose_and_hold(model, [(value, 0.4), (terms, 0.7)])


def lora_on(model, seed, layer="inner"):
    """Beside a replaced parameter, which alone would be a checkpoint's."""
    return tensors_for(model, ALGORITHMS["LoRA"], Filled(torch.float16, seed), only=[layer])


def test_the_norms_of_a_control_lora():
    """BFL's control LoRAs hold whole ``key_norm.scale``; the strength is for the rest of the file."""
    filled = Filled(torch.float32)
    block = "double_blocks.0.img_attn"
    model = holding(
        {
            f"{block}.qkv.weight": filled(24, 8).to(torch.bfloat16),
            f"{block}.norm.key_norm.scale": filled(4).to(torch.bfloat16),
        }
    )
    pristine = copy.deepcopy(model)
    scale, pair = filled(4), (filled(2, 8), filled(24, 2))
    tensors = {
        f"{block}.qkv.lora_A.weight": pair[0],
        f"{block}.qkv.lora_B.weight": pair[1],
        f"{block}.norm.key_norm.scale": scale,
    }
    lora_mmap.compose(model, [(tensors, 0.25)], strict=True)
    assert torch.equal(model.get_parameter(f"{block}.norm.key_norm.scale"), scale.to(torch.bfloat16))
    uses = {f"{block}.qkv": Use({"lora_A.weight": pair[0], "lora_B.weight": pair[1]}, 0.25)}
    uses[f"{block}.norm.key_norm"] = Use({"scale": scale}, 0.25)
    assert_composed(model, pristine, [uses])
    lora_mmap.reset(model)
    assert torch.equal(
        model.get_parameter(f"{block}.norm.key_norm.scale"), pristine.get_parameter(f"{block}.norm.key_norm.scale")
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_modulation_of_wan(dtype):
    """``diff_m`` belongs to a bare parameter [1, 6, dim] beside the block's layers."""
    filled = Filled(torch.float32)
    values = {"blocks.0.modulation": filled(1, 6, 24), "blocks.0.self_attn.q.weight": filled(24, 24)}
    model = holding({name: value.to(dtype) for name, value in values.items()})
    pristine = copy.deepcopy(model)
    difference, pair = filled(1, 6, 24), {"lora_down.weight": filled(2, 24), "lora_up.weight": filled(24, 2)}
    tensors = {"diffusion_model.blocks.0.diff_m": difference}
    tensors |= {f"diffusion_model.blocks.0.self_attn.q.{key}": value for key, value in pair.items()}
    lora_mmap.compose(model, [(tensors, -0.7)], strict=True)
    uses = {"blocks.0": Use({"diff_m": difference}, -0.7), "blocks.0.self_attn.q": Use(pair, -0.7)}
    assert assert_composed(model, pristine, [uses]) == set(values)
    assert not same_bytes(*(found.get_parameter("blocks.0.modulation") for found in (model, pristine)))
    lora_mmap.reset(model)
    assert_same_bytes(model, pristine)


def test_the_bound_where_weight_and_term_cancel():
    """What is left is the error of the term alone: it went through the rounding of the scale and of B * s too."""
    for seed in range(4):
        filled = Filled(torch.float32, seed, size=1)
        up, down, strength = filled(200, 1), filled(1, 200), 0.1 + 0.3 * seed
        layer = nn.Linear(200, 200, bias=False)
        with torch.no_grad():
            layer.weight.copy_(-strength * up.double() @ down.double())
        model = nn.ModuleDict({"layer": layer})
        compose_and_hold(model, [({"layer.lora_A.weight": down, "layer.lora_B.weight": up}, strength)])


def test_left_out_below_the_smallest_strength():
    model = every_layer(torch.float32)
    pristine = copy.deepcopy(model)
    first, second = adapters(model, "DoRA, rows", "LoHa")
    lora_mmap.compose(model, [(first, 9e-6), (second, 0.5)])
    assert_composed(model, pristine, [uses_of(second, 0.5)])
