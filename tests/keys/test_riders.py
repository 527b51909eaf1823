"""Keys in adapter files that are no adapter's tensors."""

import pytest
import torch
from recognised_groups import groups_of

from lora_mmap.families.riders import RIDERS, rider


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("bundle_emb.my-token.string_to_param.*", "textual inversion"),
        ("bundle_emb.a.b.clip_l", "textual inversion"),
        ("bundle_emb.tok.clip_g", "textual inversion"),
        ("string_to_param.*", "textual inversion"),
        ("emb_params", "textual inversion"),
        ("clip_l", "textual inversion"),
        ("clip_g", "textual inversion"),
        ("step", "counter"),
        ("global_step", "counter"),
        ("optimizer.state.0.exp_avg", "optimizer"),
        ("state.0.exp_avg_sq", "optimizer"),
        ("prompt_embeddings", "prompt"),
        ("__metadata__", "metadata"),
        ("lora_controlnet", "Control-LoRA"),
    ],
)
def test_riders(key, word):
    assert word in rider(key)


@pytest.mark.parametrize(
    "key", ["", "blocks.0.modulation", "clip_l.transformer", "my_step", "bundle_embx", "steps.0", "epochs"]
)
def test_no_riders(key):
    assert rider(key) is None


def test_a_rider_that_ends_as_a_weight_does():
    groups = groups_of({"bundle_emb.tok.weight": (4, 8), "m.lora_A.weight": (2, 8), "m.lora_B.weight": (8, 2)})
    assert groups["bundle_emb.tok"].kind == "ignored"
    assert "textual inversion" in groups["bundle_emb.tok"].reason


@pytest.mark.parametrize("entry", RIDERS)
def test_every_entry_is_reached(entry):
    assert rider(f"{entry.begins or 'x'}{entry.ends}") == entry.why


@pytest.mark.parametrize(
    ("key", "is_rider"),
    [
        ("bundle_emb." * 10_000 + "!", True),
        ("string_to_param." * 7_000 + "\n", True),
        (".exp_avg" * 14_000, True),
        (".exp_avg" * 14_000 + "!", False),
        ("\udcff" * 100_000, False),
        ("." * 200_000, False),
    ],
    ids=range(6),
)
def test_long_keys(key, is_rider):
    assert (rider(key) is not None) == is_rider


def test_a_dict_of_nothing_but_an_embedding_has_no_groups():
    assert groups_of({"emb_params": torch.ones(1, 8)}) == {}
