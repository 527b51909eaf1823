"""Algorithms whose tensors no library at hand writes, and groups that mix them."""

import pytest
import torch
from recognised_groups import FUSED, groups_of, module, only

import lora_mmap
from lora_mmap.pairing import Pair

LORA = {"lora_A__weight": (2, 8), "lora_B__weight": (12, 2)}


@pytest.mark.parametrize(
    ("shapes", "algorithm", "forms", "detail"),
    [
        (LORA | {"dora_scale": (12,)}, "dora", {"weight": (12, 8)}, "norm per output row"),
        (LORA | {"dora_scale": (1, 8)}, "dora", {"weight": (12, 8)}, "norm per input column"),
        (LORA | {"lora_magnitude_vector__weight": (12,)}, "dora", {"weight": (12, 8)}, "norm per output row"),
        (LORA | {"diff_b": (12,)}, "full", {"weight": (12, 8), "bias": (12, 1)}, ""),
        (LORA | {"bias_values": (3,), "bias_indices": (1, 3), "bias_size": (1,)}, "sparse_bias", None, ""),
        (LORA | {"scalar": ()}, "lora", {"weight": (12, 8)}, ""),
        (LORA | {"reshape_weight": (2,)}, "reshape", {"weight": (12, 8)}, ""),
        (LORA | {"base_layer__weight": (12, 8)}, "whole", {"weight": (12, 8)}, ""),
        (LORA | {"lora_diag": (2,)}, "kasa", {"weight": (12, 8)}, "truncates the base weight"),
        ({"diff_m": (1, 6, 8)}, "modulation", {"modulation": (1, 48)}, ""),
        ({"diff_b": (12,)}, "full", {"bias": (12, 1)}, ""),
        ({"diff": (12, 4, 3, 3)}, "full", {"weight": (12, 36)}, ""),
        ({"set_weight": (12, 8)}, "set", {"weight": (12, 8)}, "replaces the parameter, whatever the strength"),
        ({"oft_diag": (3, 4, 4)}, "oft", {"weight": (12, None)}, ""),
        ({"oft_blocks": (2, 3, 4, 4)}, "boft", {"weight": (12, None)}, ""),
        ({"lora_down": (8, 16), "lora_up": (12, 16)}, "nunchaku", {"weight": (12, 8)}, ""),
        ({"up": (12, 2), "down": (2, 8)}, "control_lora", {}, ""),
    ],
)
def test_what_is_in_a_group(shapes, algorithm, forms, detail):
    found = only(module(**shapes))
    assert (found.kind, found.algorithm) == ("supported" if algorithm in FUSED else "unsupported", algorithm)
    assert forms is None or found.forms == forms
    assert found.detail == detail
    assert found.formulas.keys() == (found.forms.keys() if algorithm in FUSED else set())


def test_a_bias_of_the_down_factor_is_not_fused():
    """PEFT writes none; what B makes of it would be part of the module's bias."""
    found = only(module(**LORA | {"lora_A__bias": (2,)}))
    assert (found.kind, found.algorithm) == ("unsupported", "lora_bias")


def test_the_scalar_of_old_lycoris_multiplies():
    found = only({**module(**LORA), "m.alpha": torch.tensor(1.0), "m.scalar": torch.tensor(-3.0)})
    assert (found.kind, found.scale, found.formulas["weight"].scale) == ("supported", -1.5, -1.5)
    assert found.scale_source == "alpha key, times scalar"
    assert "expected one element" in only(module(**LORA, scalar=(2,))).reason


def test_both_layouts_of_glora():
    """LyCORIS swapped the two factors of each product once; a square weight fits both, one with rank 8."""
    new = only(module(a1__weight=(8, 2), a2__weight=(2, 8), b1__weight=(8, 2), b2__weight=(2, 8)))
    old = only(module(a1__weight=(2, 8), a2__weight=(8, 2), b1__weight=(2, 8), b2__weight=(8, 2)))
    assert (new.forms, new.rank, new.detail) == ({"weight": (8, 8)}, 2, "")
    assert (old.forms, old.rank, old.detail) == ({"weight": (8, 8)}, 2, "factors in the order of old LyCORIS")
    oblong = only(module(a1__weight=(2, 8), a2__weight=(8, 2), b1__weight=(2, 8), b2__weight=(12, 2)))
    assert oblong.forms == {"weight": (12, 8)}


def test_a_rank_above_the_width_is_no_other_layout_of_glora():
    found = only(module(a1__weight=(4, 16), a2__weight=(16, 4), b1__weight=(12, 16), b2__weight=(16, 4)))
    assert (found.forms, found.rank, found.detail) == ({"weight": (12, 4)}, 16, "")


def test_the_bias_of_a_lora_is_scaled_with_it():
    found = only({**module(**LORA, lora_B__bias=(12,)), "m.alpha": torch.tensor(1.0)})
    assert (found.algorithm, found.rank, found.scale, found.scale_source) == ("lora_bias", 2, 0.5, "alpha key")
    assert found.forms == {"weight": (12, 8), "bias": (12, 1)}


def test_bfl_control_lora():
    """Its normalisations come whole and under the name that BFL has for their parameter."""
    keys = {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.proj.lora_A.weight": (4, 24),
        "double_blocks.0.img_attn.proj.lora_B.weight": (24, 4),
        "double_blocks.0.img_attn.proj.lora_B.bias": (24,),
    }
    groups = groups_of(keys)
    norm = groups["double_blocks.0.img_attn.norm.key_norm"]
    assert (norm.algorithm, norm.scale, norm.forms) == ("set", None, {"scale": (128, 1)})
    assert groups["double_blocks.0.img_attn.proj"].algorithm == "lora_bias"


def test_ia3_reads_its_flag_and_not_the_shape():
    columns = only({"m.weight": torch.ones(8), "m.on_input": torch.tensor(1)})
    rows = only({"m.weight": torch.ones(1, 8, 1, 1), "m.on_input": torch.tensor(0)})
    assert (columns.forms, rows.forms) == ({"weight": (None, 8)}, {"weight": (8, None)})
    assert (columns.detail, rows.detail) == ("columns multiplied", "rows multiplied")


def test_a_full_checkpoint_is_called_one():
    groups = groups_of({"first.weight": (4, 8), "first.bias": (4,), "norm.scale": (4,), "norm.weight": (4,)})
    assert {found.algorithm for found in groups.values()} == {"checkpoint"}
    assert all("dict of 4 tensors is a full checkpoint" in found.reason for found in groups.values())


def test_whole_weights_among_an_adapters_are_no_checkpoint():
    groups = groups_of({"head.weight": (4, 8), "head.bias": (4,), **module(**LORA)})
    assert isinstance(groups["m"], Pair)
    assert groups["head"].algorithm == "whole"
    assert groups["head"].forms == {"weight": (4, 8), "bias": (4, 1)}


def test_adapters_of_two_names_are_recognised_apart():
    shapes = {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)}
    keys = {f"m.{word}.{name}": torch.ones(shape) for name in ("a", "b") for word, shape in shapes.items()}
    with lora_mmap.open_adapter(keys) as adapter:
        found = lora_mmap.pairing.pair_up(adapter)
    assert [(each.algorithm, each.forms) for each in found] == [("loha", {"weight": (12, 8)})] * 2


def test_an_alpha_of_one_element_may_have_a_dimension():
    found = only({**module(hada_w1_a=(12, 2), hada_w1_b=(2, 8), hada_w2_a=(12, 2), hada_w2_b=(2, 8)), "m.alpha": (1,)})
    assert found.scale == 0.5
