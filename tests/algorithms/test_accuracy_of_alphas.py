"""alpha in every form that files have it in, and what it means to each algorithm."""

import pytest
import torch
from composing import compose_and_hold, every_layer, tensors_for
from every_algorithm import ALGORITHMS, Filled

import lora_mmap

SCALED = [name for name, found in ALGORITHMS.items() if "alpha" in found.tensors((4, 4, 2, 2), Filled(torch.float32))]
FORMS = {
    "F16 0-d": torch.tensor(2.5, dtype=torch.float16),
    "F16 1-d": torch.tensor([2.5], dtype=torch.float16),
    "BF16 0-d": torch.tensor(2.5, dtype=torch.bfloat16),
    "F32 0-d": torch.tensor(2.7),
    "F32 1-d": torch.tensor([2.7]),
    "F64 0-d": torch.tensor(2.7, dtype=torch.float64),
    "negative": torch.tensor(-2.7),
    "missing": None,
}


def with_alpha(model, name, alpha):
    tensors = tensors_for(model, ALGORITHMS[name], Filled(torch.float16))
    plain = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    if alpha is None:
        return plain
    return plain | {key: alpha.clone() for key in tensors if key.endswith(".alpha")}


def test_which_algorithms_have_one():
    """LoRA, Tucker, LoHa, LoKr and DoRA over each of them: what follows must not be about nothing."""
    assert len(SCALED) >= 15


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCALED)
def test_forms(name, form):
    model = every_layer(torch.float32)
    compose_and_hold(model, [(with_alpha(model, name, FORMS[form]), 0.7)])


@pytest.mark.parametrize("name", SCALED)
def test_zero(name, sha256):
    """Nothing is added; DoRA still scales the weight itself, and two whole Kronecker factors ignore any alpha."""
    model = every_layer(torch.bfloat16)
    before = sha256(model)
    tensors = with_alpha(model, name, torch.tensor(0.0))
    if "DoRA" in name or name == "LoKr, both whole" or "bias" in name:
        compose_and_hold(model, [(tensors, 0.7)])
    else:
        lora_mmap.compose(model, [(tensors, 0.7)])
        assert sha256(model) == before


def test_the_dummy_of_two_whole_kronecker_factors():
    """LyCORIS writes 1e10 there, and takes the scale for 1."""
    model = every_layer(torch.bfloat16)
    tensors = with_alpha(model, "LoKr, both whole", torch.tensor(1e10))
    compose_and_hold(model, [(tensors, 1.0)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", SCALED)
def test_not_finite(name, value, sha256):
    model = every_layer(torch.bfloat16)
    before = sha256(model)
    tensors = with_alpha(model, name, torch.tensor(value))
    if name == "LoKr, both whole":
        compose_and_hold(model, [(tensors, 1.0)])
        return
    with pytest.raises(lora_mmap.errors.AdapterError, match="alpha"):
        lora_mmap.compose(model, [(tensors, 1.0)])
    assert sha256(model) == before
