"""Text encoders share their module names: which of them a bare model is follows from shapes or from component=."""

import copy

import pytest
import torch
from adapter_tensors import factors, keyed
from numerics_bound import assert_one_rounding
from torch import nn

import lora_mmap
from lora_mmap.errors import AmbiguousKeyError

PATH = "text_model.encoder.layers.0.self_attn.q_proj"
KOHYA = ("lora_down.weight", "lora_up.weight")


def encoder(width):
    """A CLIP-like skeleton."""
    torch.manual_seed(width)
    model = nn.Module()
    model.add_module("text_model", nn.Module())
    model.text_model.add_module("encoder", nn.Module())
    layer = nn.Module()
    layer.add_module("self_attn", nn.Module())
    layer.self_attn.add_module("q_proj", nn.Linear(width, width, bias=False))
    model.text_model.encoder.add_module("layers", nn.ModuleList([layer]))
    return model


def kohya(first, second):
    """An adapter on two text encoders, as kohya's trainer writes it for SDXL."""
    name = PATH.replace(".", "_")
    return keyed({f"lora_te1_{name}": first, f"lora_te2_{name}": second}, words=KOHYA)


def diffusers(first, second):
    return keyed({f"text_encoder.{PATH}": first, f"text_encoder_2.{PATH}": second})


@pytest.mark.parametrize("dialect", [kohya, diffusers])
@pytest.mark.parametrize("which", [0, 1])
def test_shapes_tell(dialect, which):
    pairs = factors(24, 24, seed=1), factors(40, 40, seed=2)
    model = encoder((24, 40)[which])
    pristine = copy.deepcopy(model)
    report = lora_mmap.compose(model, [(dialect(*pairs), 1.0)])
    assert report.applied == 1
    assert_one_rounding(model.get_submodule(PATH).weight, pristine.get_submodule(PATH).weight, [(*pairs[which], 1.0)])
    told = [entry["outcome"] for entry in report.to_dict()["keys"].values()]
    assert told.count("applied") == told.count("absent") == 2
    lora_mmap.reset(model)
    assert torch.equal(model.get_submodule(PATH).weight, pristine.get_submodule(PATH).weight)


@pytest.mark.parametrize("dialect", [kohya, diffusers])
def test_equal_widths_are_ambiguous_until_said(dialect, sha256):
    pairs = factors(24, 24, seed=1), factors(24, 24, seed=2)
    model = encoder(24)
    before = sha256(model)
    with pytest.raises(AmbiguousKeyError, match="component="):
        lora_mmap.compose(model, [(dialect(*pairs), 1.0)])
    assert sha256(model) == before
    for component, pair in zip(("text_encoder", "text_encoder_2"), pairs, strict=True):
        twin = copy.deepcopy(model)
        lora_mmap.compose(twin, [(dialect(*pairs), 1.0)], component=component)
        assert_one_rounding(twin.get_submodule(PATH).weight, model.get_submodule(PATH).weight, [(*pair, 1.0)])


def test_neither_width_fits(sha256):
    model = encoder(32)
    before = sha256(model)
    with pytest.raises(AmbiguousKeyError):
        lora_mmap.compose(model, [(kohya(factors(24, 24), factors(40, 40)), 1.0)])
    assert sha256(model) == before


def test_component_leaves_out_the_others():
    """A file for one encoder alone does not land in a model that is said to be the other."""
    model = encoder(24)
    tensors = keyed({f"text_encoder.{PATH}": factors(24, 24)})
    assert lora_mmap.check(model, tensors)
    assert not lora_mmap.check(model, tensors, component="text_encoder_2")
    assert not lora_mmap.check(model, tensors, component="denoiser")


def test_an_unknown_component_is_an_error():
    with pytest.raises(lora_mmap.errors.ArgumentError, match="component"):
        lora_mmap.compose(encoder(24), [(keyed({PATH: factors(24, 24)}), 1.0)], component="text_encoder2")


def test_encoder_keys_do_not_land_in_a_denoiser_of_the_same_names():
    """unet. and text_encoder. in one file, and a model that has both paths' names."""
    model = nn.Module()
    model.add_module("proj", nn.Linear(8, 8, bias=False))
    pristine = copy.deepcopy(model)
    unet, text = factors(8, 8, seed=1), factors(8, 8, seed=2)
    tensors = keyed({"unet.proj": unet, "text_encoder.proj": text})
    with pytest.raises(AmbiguousKeyError):
        lora_mmap.compose(model, [(tensors, 1.0)])
    lora_mmap.compose(model, [(tensors, 1.0)], component="denoiser")
    assert_one_rounding(model.proj.weight, pristine.proj.weight, [(*unet, 1.0)])


@pytest.mark.parametrize("prefix", ["lora_te2_", "lora_te3_", "text_encoder_2.", "text_encoder_3."])
@pytest.mark.parametrize("component", ["text_encoder_2", "text_encoder_3"])
def test_t5_is_t5_whatever_its_number(prefix, component):
    """kohya and OneTrainer number the text encoders of Flux.1 differently; no pipeline has two T5."""
    path = "encoder.block.0.layer.0.SelfAttention.q"
    model = nn.Module()
    parent = model
    for level in path.split(".")[:-1]:
        parent.add_module(level, nn.Module())
        parent = parent.get_submodule(level)
    parent.add_module("q", nn.Linear(8, 8, bias=False))
    written = path.replace(".", "_") if prefix.endswith("_") else path
    tensors = keyed({prefix + written: factors(8, 8)}, words=KOHYA)
    assert lora_mmap.check(model, tensors, component=component)
    assert not lora_mmap.check(model, tensors, component="denoiser")
