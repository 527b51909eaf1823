"""Every spelling of a plain pair, and everything that must not be mistaken for one."""

import pytest

from lora_mmap.families import key_tables
from lora_mmap.families.suffixes import UNSUPPORTED


def suffix_of(key: str) -> tuple[str, str, str]:
    """(stem, infix, role) as the compiled tables see one key."""
    tables = key_tables()
    (group,) = tables.grammar.classify([key]).groups()
    stem, infix, _, ((suffix, _),), _ = group
    return stem, infix, tables.suffixes[suffix].role


@pytest.mark.parametrize(
    ("ending", "infix", "role"),
    [
        (".lora_down.weight", "", "down"),
        (".lora_up.weight", "", "up"),
        (".lora_A.weight", "", "down"),
        (".lora_B.weight", "", "up"),
        (".lora_A.default.weight", "default", "down"),
        (".lora_B.default_0.weight", "default_0", "up"),
        (".lora_A", "", "down"),
        (".lora_B.my-style", "my-style", "up"),
        (".lora.down.weight", "", "down"),
        (".lora.up.weight", "", "up"),
        (".lora_linear_layer.down.weight", "", "down"),
        (".lora_linear_layer.up.weight", "", "up"),
        ("_lora.down.weight", "", "down"),
        (".alpha", "", "alpha"),
        (".lora_alpha", "", "alpha"),
        (".lora_mid.weight", "", "mid"),
        (".dora_scale", "", "magnitude"),
        (".lora_magnitude_vector", "", "magnitude"),
        (".lora_magnitude_vector.weight", "", "magnitude"),
        (".lora_magnitude_vector.default.weight", "default", "magnitude"),
        (".lora_B.bias", "", "up_bias"),
        (".lora_B.default.bias", "default", "up_bias"),
        (".hada_w1_a", "", "w1_a"),
        (".lokr_w2", "", "w2"),
        (".lokr_w2_b", "", "w2_b"),
        (".oft_blocks", "", "oft_blocks"),
        (".diff", "", "diff"),
        (".diff_b", "", "diff_bias"),
        (".lora_embedding_A.default", "default", "embedding_down"),
    ],
)
def test_spellings(ending, infix, role):
    assert suffix_of("transformer_blocks.0.attn.to_q" + ending) == ("transformer_blocks.0.attn.to_q", infix, role)


def test_one_trailing_underscore_belongs_to_the_trainer():
    assert suffix_of("lora_unet_blocks_10_attn_to_k_.alpha")[0] == "lora_unet_blocks_10_attn_to_k"


@pytest.mark.parametrize("key", ["x.weight", "x.bias", "alpha", "lora_A.weight", "", ".alpha", "x.lora_A.a.b.weight"])
def test_no_adapter_keys(key):
    classification = key_tables().grammar.classify([key])
    assert classification.unknown == [0]
    assert len(classification) == 0


def test_every_algorithm_is_either_plain_or_explained():
    algorithms = {suffix.algorithm for suffix in key_tables().suffixes} - {"", "lora"}
    assert algorithms <= UNSUPPORTED.keys()


def test_two_adapter_names_in_one_file_are_two_groups():
    keys = [f"m.lora_{side}.{name}.weight" for name in ("a", "b") for side in "AB"]
    groups = key_tables().grammar.classify(keys).groups()
    assert [(stem, infix, len(members)) for stem, infix, _, members, _ in groups] == [("m", "a", 2), ("m", "b", 2)]
