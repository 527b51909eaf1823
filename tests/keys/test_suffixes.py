"""Every spelling of a plain pair, and everything that must not be mistaken for one."""

import pytest

from lora_mmap import _C
from lora_mmap.algorithms import title
from lora_mmap.families.suffixes import SUFFIXES

GRAMMAR = _C.Grammar([(suffix.pattern, suffix.role, len(suffix.keep)) for suffix in SUFFIXES], [], [])


def match(key):
    """(stem, infix, entry of the table) as the compiled tables see one key."""
    ((stem, infix, _, ((suffix, _),), _),) = GRAMMAR.classify([key]).groups()
    return stem, infix, SUFFIXES[suffix]


def suffix_of(key: str) -> tuple[str, str, str]:
    stem, infix, suffix = match(key)
    return stem, infix, suffix.role


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
        (".lora_up.bias", "", "up_bias"),
        (".lora_down", "", "packed_down"),
        (".alpha.default", "default", "alpha"),
        (".hada_w1_a", "", "w1_a"),
        (".hada_w1_a.default", "default", "w1_a"),
        (".hada_t2", "", "t2"),
        (".lokr_w1.default", "default", "w1"),
        (".lokr_w2", "", "w2"),
        (".lokr_w2_b", "", "w2_b"),
        (".oft_blocks", "", "oft_blocks"),
        (".oft_R.weight", "", "oft_r"),
        (".oft_R.default.weight", "default", "oft_r"),
        (".boft_R.default", "default", "boft_r"),
        (".ia3_l", "", "ia3"),
        (".ia3_l.default", "default", "ia3"),
        (".on_input", "", "on_input"),
        (".a1.weight", "", "a1"),
        (".bm.weight", "", "bm"),
        (".diff", "", "diff"),
        (".diff_b", "", "diff_bias"),
        (".diff_m", "", "diff_modulation"),
        (".w_norm", "", "diff"),
        (".b_norm", "", "diff_bias"),
        (".set_weight", "", "set"),
        (".reshape_weight", "", "reshape"),
        (".scalar", "", "scalar"),
        (".bias_values", "", "bias_values"),
        (".lora_embedding_A", "", "embedding_down"),
        (".lora_embedding_A.default", "default", "embedding_down"),
        (".q_layer.weight", "", "q_layer"),
        (".lambda_layer", "", "lambda_layer"),
    ],
)
def test_spellings(ending, infix, role):
    assert suffix_of("transformer_blocks.0.attn.to_q" + ending) == ("transformer_blocks.0.attn.to_q", infix, role)


@pytest.mark.parametrize(
    ("key", "stem", "role"),
    [
        ("lycoris_blocks_0.weight", "lycoris_blocks_0", "whole"),
        ("head.bias", "head", "whole_bias"),
        ("head.base_layer.bias", "head", "whole_bias"),
        ("head.modules_to_save.weight", "head", "whole"),
        ("head.modules_to_save.default.weight", "head", "whole"),
        ("head.original_module.weight", "head", "original"),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.img_attn.norm.key_norm", "set"),
        ("x.lora_A.a.b.weight", "x.lora_A.a.b", "whole"),  # a name of PEFT's holds no dot
    ],
)
def test_bare_endings_take_what_nothing_longer_does(key, stem, role):
    assert match(key)[0] == stem
    assert match(key)[2].role == role


@pytest.mark.parametrize(
    ("ending", "parameter"),
    [
        (".lora_B.weight", "weight"),
        (".lora_B.bias", "bias"),
        (".diff_b", "bias"),
        (".b_norm", "bias"),
        (".bias_indices", "bias"),
        (".bias", "bias"),
        (".diff_m", "modulation"),
        (".scale", "scale"),
    ],
)
def test_the_parameter_that_a_tensor_is_for(ending, parameter):
    assert match("module" + ending)[2].parameter == parameter


@pytest.mark.parametrize("key", ["alpha", "weight", "", ".alpha", "emb_params", "x.modulation"])
def test_no_adapter_keys(key):
    classification = GRAMMAR.classify([key])
    assert classification.unknown == [0]
    assert len(classification) == 0


def test_every_algorithm_has_a_title():
    assert all(title(suffix.algorithm) for suffix in SUFFIXES if suffix.algorithm not in ("", "original", "dora_peft"))


def test_two_adapter_names_in_one_file_are_two_groups():
    keys = [f"m.lora_{side}.{name}.weight" for name in ("a", "b") for side in "AB"]
    groups = GRAMMAR.classify(keys).groups()
    assert [(stem, infix, len(members)) for stem, infix, _, members, _ in groups] == [("m", "a", 2), ("m", "b", 2)]
