"""A thousand random steps: after every one the weights are what composing directly gives, after a reset the start's."""

import pytest
import torch
from undo_adapters import adapters_for, overflowing
from undo_histories import history
from undo_models import differing, every_kind
from undo_tiers import every_tier
from undo_walker import Mirror, Walker, open_sources

import lora_mmap

STEPS = 1000
every_dtype = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)


@every_tier
@every_dtype
def test_a_thousand_steps(dtype, tier, tmp_path, sha256):
    model = every_kind(dtype)
    pristine, arguments = sha256(model), tier.arguments(model, tmp_path)
    sources = open_sources(adapters_for(model), tmp_path)
    for source in sources:
        lora_mmap.check(model, source, strict=True)
    mirror = Mirror(dtype, sources)
    walker = Walker(model, arguments, sources, lora_mmap.open_adapter(overflowing(model)))
    resets, distinct = 0, set()
    for number, step in enumerate(history(f"{dtype}", STEPS, len(sources))):
        walker.take(step)
        if step.kind == "reset":
            assert sha256(model) == pristine, (number, step)
            resets += 1
        expected = mirror.composed(step.after)
        assert differing(model, expected) == [], (number, step)
        distinct.add(sha256(expected))
    assert resets > STEPS // 25
    assert len(distinct) > STEPS // 3
    assert tier.uses <= walker.tiers
