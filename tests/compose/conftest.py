"""A model that bad input must leave as it was."""

import pytest
from adapter_tensors import adapter_for, keyed
from bad_input import good

import lora_mmap


@pytest.fixture(params=["pristine", "composed"])
def model(request, small, sha256):
    """A model in either state; afterwards its bytes are those before the test, and it can be used as if nothing was."""
    pristine = sha256(small)
    if request.param == "composed":
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["first", "point"], seed=5)), 0.7)])
    now = sha256(small)
    yield small
    assert sha256(small) == now, "the weights changed"
    if request.param == "composed":
        lora_mmap.set_lora_strength_v2(small, 1.0)
        assert sha256(small) == now, "the old composition cannot be repeated"
    assert lora_mmap.compose(small, [(good(small), 1.0)])
    assert lora_mmap.reset(small) is True
    assert sha256(small) == pristine, "the pristine weights are lost"
