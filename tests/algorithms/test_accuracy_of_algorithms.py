"""Every algorithm on every kind of layer and dtype, against the formula in extended precision."""

import pytest
import torch
from composing import compose_and_hold, every_layer, tensors_for
from every_algorithm import ALGORITHMS, Filled

WEIGHTS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FACTORS = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_dtype_and_layout(name, weights, channels_last):
    for seed, stored in enumerate(FACTORS):
        model = every_layer(weights, channels_last)
        tensors = tensors_for(model, ALGORITHMS[name], Filled(stored, seed))
        compose_and_hold(model, [(tensors, 1.0)])


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64], ids=str)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_factors_of_8_and_of_64_bits(name, stored):
    model = every_layer(torch.bfloat16)
    compose_and_hold(model, [(tensors_for(model, ALGORITHMS[name], Filled(stored)), 1.0)])


@pytest.mark.parametrize("strength", [0.5, -0.7, 3.0])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_strengths(name, strength):
    for dtype in (torch.bfloat16, torch.float32):
        model = every_layer(dtype)
        compose_and_hold(model, [(tensors_for(model, ALGORITHMS[name], Filled(torch.float16, 3)), strength)])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_strength_zero_changes_nothing(name, sha256):
    import lora_mmap

    model = every_layer(torch.bfloat16)
    before = sha256(model)
    lora_mmap.compose(model, [(tensors_for(model, ALGORITHMS[name], Filled(torch.float16)), 0.0)])
    assert sha256(model) == before


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_file_gives_the_same_bits_as_its_tensors(name, tmp_path, sha256):
    from adapter_tensors import write

    import lora_mmap

    model, other = every_layer(torch.bfloat16), every_layer(torch.bfloat16)
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float32, 4))
    lora_mmap.compose(model, [(tensors, 0.8)], strict=True)
    lora_mmap.compose(other, [(write(tmp_path / "adapter.safetensors", tensors), 0.8)], strict=True)
    assert sha256(model) == sha256(other)
