"""One history of a thousand steps, here and through PEFT's merging: what is left of the weights at the end."""

import pytest
import torch
from undo_adapters import PLAIN, adapters_for, overflowing
from undo_histories import history
from undo_models import every_kind
from undo_walker import Walker

import lora_mmap

pytest.importorskip("peft")

from peft_history import MergedByPeft, drift

STEPS = 1000


def weights_of(model, modules):
    return {name: model.get_submodule(name).weight for name in modules}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_drift(dtype, record_property, sha256):
    """Ours is 0. PEFT's is recorded: relative error, and the share of elements that are other bits than before."""
    # The odd values are left out: half of the largest number would hide every error beside it.
    ours, theirs = every_kind(dtype, planted=False), every_kind(dtype, planted=False)
    adapters = [adapters_for(ours)[index] for index in PLAIN]
    before, pristine = sha256(ours), every_kind(dtype, planted=False)
    sources = [lora_mmap.open_adapter(tensors) for tensors in adapters]
    walker = Walker(ours, {}, sources, lora_mmap.open_adapter(overflowing(ours)))
    peft = MergedByPeft(theirs, adapters)
    assert peft.layers.keys() == {"wide", "tall", "conv", "last", "point", "plain", "table"}
    original = weights_of(pristine, peft.layers)
    farthest = 0.0
    for number, step in enumerate(history(f"{dtype}", STEPS, len(PLAIN))):
        walker.take(step)
        if step.kind != "fail":
            peft.compose(step.after)
        if number % 50 == 0:
            farthest = max(farthest, drift(weights_of(ours, original), original)[0])
    own = drift(weights_of(ours, original), original)
    error, changed = drift(peft.weights(), original)
    figures = {"steps": STEPS, "merges": peft.merges, "error": error, "changed": changed}
    record_property("drift of PEFT", figures)
    record_property("drift of lora_mmap", {"error": own[0], "changed": own[1]})
    print(f"{dtype}: after {STEPS} steps PEFT {error:.3g} ({changed:.2%} of elements), lora_mmap {own[0]:.3g}")
    assert sha256(ours) == before
    assert own == (0.0, 0.0)
    assert farthest > 0.01, "the history composed next to nothing"
    assert peft.merges > STEPS // 3
    assert error < 1, "PEFT did not take out what it had merged"
