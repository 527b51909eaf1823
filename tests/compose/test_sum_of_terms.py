"""What composing means: pristine + the sum of all terms, in order, rounded once."""

import copy

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from composed_weights import ALL, LINEARS, assert_terms
from torch import nn

import lora_mmap


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_weight_and_factor_dtype(small, tmp_path, weights, stored, sha256):
    model = small.to(weights)
    pristine = copy.deepcopy(model)
    before = sha256(model)
    pairs = adapter_for(model, ALL, dtype=stored)
    path = write(tmp_path / "a.safetensors", keyed(pairs, alpha=6))
    report = lora_mmap.compose(model, [(path, 0.5)], strict=True)
    assert report.applied == 4
    assert_terms(model, pristine, {f"{m}.weight": [(*pair, 0.5 * 6 / 4)] for m, pair in pairs.items()})
    assert lora_mmap.reset(model) is True
    assert sha256(model) == before


def test_several_adapters_sum_with_one_rounding(small, tmp_path):
    model = small.to(torch.bfloat16)
    pristine = copy.deepcopy(model)
    first, second = adapter_for(model, ALL, 3, seed=1), adapter_for(model, ["second", "conv"], 7, seed=2)
    entries = [
        (write(tmp_path / "1.safetensors", keyed(first)), 0.7),
        (write(tmp_path / "2.safetensors", keyed(second, alpha=2)), -1.3),
    ]
    lora_mmap.compose(model, entries)
    terms = {f"{m}.weight": [(*pair, 0.7)] for m, pair in first.items()}
    for module, pair in second.items():
        terms[f"{module}.weight"].append((*pair, -1.3 * 2 / 7))
    assert_terms(model, pristine, terms)


def test_negative_strength_is_the_opposite_sign(small):
    pristine = copy.deepcopy(small)
    pairs = adapter_for(small, LINEARS)
    lora_mmap.compose(small, [(keyed(pairs), -2.0)])
    assert_terms(small, pristine, {f"{m}.weight": [(*pair, -2.0)] for m, pair in pairs.items()})


def fused_sequentially(weight, terms):
    """The contract to the letter, in numpy: fma in rank order by way of float64 and one rounding each.

    float32 products are exact in float64; adding a float32 there and rounding to float32 can differ from a true fma
    only in double rounding, so tests choose values with few bits, where it cannot.
    """
    acc = torch.zeros_like(weight, dtype=torch.float32)
    for down, up, scale in terms:
        for r in range(down.shape[0]):
            b = up[:, r].float() * torch.tensor(scale, dtype=torch.float32)
            acc = (b.double()[:, None] * down[r].double()[None, :] + acc.double()).float()
    return (weight.float() + acc).to(weight.dtype)


def test_the_order_of_adapters_is_the_order_of_the_sum():
    """1 and 2^-24 in this order round differently than the other way round: both orders are kept to the bit."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    model = nn.Sequential(layer)
    big, tiny = torch.ones(1, 1), torch.full((1, 1), 2.0**-24)
    entries = {
        name: {"0.lora_A.weight": torch.ones(1, 1), "0.lora_B.weight": b} for name, b in (("big", big), ("tiny", tiny))
    }
    lora_mmap.compose(model, [(entries["big"], 1.0), (entries["tiny"], 1.0), (entries["tiny"], 1.0)])
    assert layer.weight.item() == 1.0
    lora_mmap.compose(model, [(entries["tiny"], 1.0), (entries["tiny"], 1.0), (entries["big"], 1.0)])
    assert layer.weight.item() == 1.0 + 2.0**-23


def test_bit_equal_to_sequential_fma(small):
    """Few-bit factors make every step exact in float64, so the emulated fma is the true one."""
    generator = torch.Generator().manual_seed(4)
    model = small.to(torch.bfloat16)
    pristine = copy.deepcopy(model)
    shape = model.first.weight.shape
    terms, entries = [], []
    for rank, strength in ((5, 0.5), (3, -2.0)):
        down = torch.randint(-127, 127, (rank, shape[1]), generator=generator) / 256
        up = torch.randint(-127, 127, (shape[0], rank), generator=generator) / 1024
        terms.append((down, up, strength))
        entries.append((keyed({"first": (down, up)}), strength))
    lora_mmap.compose(model, entries)
    assert torch.equal(model.first.weight, fused_sequentially(pristine.first.weight.detach(), terms))


def test_nan_and_inf_of_the_weight_stay_as_they_are(small):
    """What was not finite before is no overflow, and a NaN keeps its bits."""
    with torch.no_grad():
        small.first.weight.view(torch.int32)[0, 0] = 0x7FC12345
        small.first.weight[1, 1] = float("inf")
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"])), 1.0)])
    assert small.first.weight.detach().view(torch.int32)[0, 0] == 0x7FC12345
    assert small.first.weight[1, 1] == float("inf")


def test_flush_denormal_changes_nothing(small):
    other = copy.deepcopy(small)
    pairs = adapter_for(small, ALL, size=1e-22)
    with torch.no_grad():
        for model in (small, other):
            for parameter in model.parameters():
                parameter.mul_(1e-38)
    lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    torch.set_flush_denormal(True)
    try:
        lora_mmap.compose(other, [(keyed(pairs), 1.0)])
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(small.first.weight.view(torch.int32), other.first.weight.view(torch.int32))
    assert torch.equal(small.conv.weight.view(torch.int32), other.conv.weight.view(torch.int32))
