"""Arguments that cannot be, adapters that were closed: a clear error, and every weight byte-identical after it."""

import pytest
import torch
from adapter_tensors import write
from bad_input import good

import lora_mmap
from lora_mmap.errors import ArgumentError, ClosedError, LoraMmapError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("strength", [NAN, INF, -INF, "strong", None, 1j])
def test_impossible_strength(model, strength):
    with pytest.raises(ArgumentError, match=r"\[compose\] adapters\[1\] strength"):
        lora_mmap.compose(model, [(good(model), 1.0), (good(model), strength)])
    with pytest.raises(ArgumentError, match=r"\[set_lora_strength_v2\]"):
        lora_mmap.set_lora_strength_v2(model, strength)


@pytest.mark.parametrize(
    "adapters",
    [
        "a.safetensors",
        None,
        3,
        {"a": 1},
        [("a.safetensors",)],
        ["a.safetensors"],
        [("a", 1.0, None, None)],
        [(3, 1.0)],
        [(None, 1.0)],
    ],
    ids=repr,
)
def test_impossible_arguments(model, adapters):
    with pytest.raises(LoraMmapError, match=r"^\[(compose|open_adapter)\]"):
        lora_mmap.compose(model, adapters)


def test_unknown_restore_tier(model):
    with pytest.raises(ArgumentError, match="restore is 'maybe'"):
        lora_mmap.compose(model, [(good(model), 1.0)], restore="maybe")


@pytest.mark.parametrize("thing", [None, "model", 3, torch.zeros(2, 2), {}], ids=repr)
def test_no_model(thing):
    for call in (
        lambda: lora_mmap.compose(thing, []),
        lambda: lora_mmap.reset(thing),
        lambda: lora_mmap.check(thing, []),
        lambda: lora_mmap.set_lora_strength_v2(thing, 1.0),
    ):
        with pytest.raises(ArgumentError, match=r"expected a torch\.nn\.Module"):
            call()


def test_a_closed_adapter(model, tmp_path):
    adapter = lora_mmap.open_adapter(write(tmp_path / "a.safetensors", good(model)))
    adapter.close()
    with pytest.raises(ClosedError, match=r"\[compose\].*a\.safetensors.*closed"):
        lora_mmap.compose(model, [(adapter, 1.0)])


@pytest.mark.parametrize("kind", ["file", "dict"])
def test_an_adapter_closed_by_its_owner_while_composed(small, tmp_path, sha256, kind):
    """Its factors are retained: neither strength changes nor undoing need it."""
    pristine = sha256(small)
    source = good(small) if kind == "dict" else write(tmp_path / "a.safetensors", good(small))
    adapter = lora_mmap.open_adapter(source)
    lora_mmap.compose(small, [(adapter, 1.0)])
    composed = sha256(small)
    adapter.close()
    assert lora_mmap.set_lora_strength_v2(small, 0.5)
    assert sha256(small) != composed
    assert lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed
    assert lora_mmap.reset(small)
    assert sha256(small) == pristine


def test_an_adapter_closed_while_its_file_is_what_undoes(small, tmp_path, sha256):
    adapter = lora_mmap.open_adapter(write(tmp_path / "a.safetensors", good(small)))
    lora_mmap.compose(small, [(adapter, 1.0)], retain="file")
    composed = sha256(small)
    adapter.close()
    for change in (lora_mmap.reset, lambda model: lora_mmap.set_lora_strength_v2(model, 0.5)):
        with pytest.raises(ClosedError):
            change(small)
        assert sha256(small) == composed
