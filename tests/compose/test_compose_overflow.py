"""Sums that the weights cannot hold: an error that says where, and every weight as before it."""

import pytest
import torch
from adapter_tensors import keyed
from bad_input import assert_says, good

import lora_mmap
from lora_mmap.errors import FusionOverflowError, LoraMmapError


def test_scale_that_overflows(model):
    with pytest.raises(LoraMmapError, match=r"first|conv|second"):
        lora_mmap.compose(model, [(good(model), 1e300)])


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_overflow_of_the_weight_dtype(small, sha256, kind):
    """A result beyond the weight's range is an error that names module, adapter and strength; all layers roll back."""
    model = small.to(torch.float16 if kind == "fp16" else torch.bfloat16)
    pristine = sha256(model)
    largest = torch.finfo(model.first.weight.dtype).max
    down, up = torch.zeros(1, 37), torch.zeros(29, 1)
    down[0, 36], up[28, 0] = largest**0.5, largest**0.5
    tensors = good(model) | keyed({"second": (down, up)}, alpha=1)
    lora_mmap.compose(model, [(tensors, 0.5)])
    composed = sha256(model)
    with pytest.raises(FusionOverflowError) as error:
        lora_mmap.compose(model, [(tensors, 1.5)])
    assert_says(error, "[compose]", "second.weight", "1.5", "dict")
    assert sha256(model) == composed
    with pytest.raises(FusionOverflowError):
        lora_mmap.set_lora_strength_v2(model, 4.0)
    assert sha256(model) == composed
    lora_mmap.reset(model)
    assert sha256(model) == pristine
    with pytest.raises(FusionOverflowError):
        lora_mmap.compose(model, [(tensors, 1.5)], restore="none")
    assert sha256(model) == pristine
