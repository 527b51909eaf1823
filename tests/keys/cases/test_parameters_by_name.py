"""Tensors for a bias, a norm or a parameter of a module's own: cases 14, 15, 16, 26, 27 and 28.

Their arithmetic is not here yet: what is asserted is that they are recognised, where they belong, and that nothing is
fused in their name.
"""

import pytest
import torch
from file_tensors import factors
from small_models import H, model_of, told, where

import lora_mmap
from lora_mmap.errors import AdapterError, UnmatchedKeysError


def outcome(model, key, shape, reason="", **others):
    """The verdict on ``key``; composing strictly raises, composing leaves every weight as it was."""
    tensors = {key: torch.ones(shape)} | {name.replace("__", "."): torch.ones(size) for name, size in others.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnmatchedKeysError):
        lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    lora_mmap.compose(model, [(tensors, 1.0)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    verdict = told(model, tensors)[key]
    assert reason in verdict["reason"]
    return verdict


WAN = {
    "blocks.12.cross_attn.norm_k_img": (H,),
    "blocks.12.cross_attn.v_img": (H, H),
    "blocks.12.self_attn.q": (H, H),
}
WAN_22 = {"blocks.12.self_attn.q": (H, H), "blocks.12.cross_attn.v": (H, H)}  # image to video without an image's k, v


@pytest.mark.parametrize("parameter", ["blocks__12__modulation", "blocks__12__scale_shift_table"])
def test_case_14_diff_m_is_for_the_parameter_modulation(parameter):
    """``diffusion_model.blocks.12.diff_m``: Wan's Parameter ``blocks.12.modulation`` [1, 6, width]."""
    model = model_of(WAN, **{parameter: (1, 6, H)})
    verdict = outcome(model, "diffusion_model.blocks.12.diff_m", (1, 6, H), "diff")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [(parameter.replace("__", "."), None, None, None)]


def test_case_14_the_heads_modulation():
    """``head.diff_m``; the parameter may be the first and only one of the model."""
    model = model_of({}, head__modulation=(1, 2, H))
    verdict = outcome(model, "diffusion_model.head.diff_m", (1, 2, H), "diff")
    assert where(verdict) == [("head.modulation", None, None, None)]


@pytest.mark.parametrize("key", ["diffusion_model.blocks.12.modulation.diff", "blocks.12.modulation.diff"])
def test_case_14_by_the_parameters_own_name(key):
    verdict = outcome(model_of(WAN, blocks__12__modulation=(1, 6, H)), key, (1, 6, H), "diff")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [("blocks.12.modulation", None, None, None)]


@pytest.mark.parametrize(
    ("modules", "module"),
    [
        (WAN, "blocks.12.cross_attn.norm_k_img"),
        ({"blocks.12.attn2.norm_added_k": (H,)}, "blocks.12.attn2.norm_added_k"),
    ],
    ids=["native", "diffusers"],
)
def test_case_15_a_norms_weight(modules, module):
    """``diffusion_model.blocks.18.cross_attn.norm_k_img.diff``: one dimension, a norm's."""
    verdict = outcome(model_of(modules), "diffusion_model.blocks.12.cross_attn.norm_k_img.diff", (H,), "diff")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [(module, None, None, None)]


def test_case_16_absent_in_this_model_and_not_an_unknown_format():
    """``diffusion_model.blocks.17.cross_attn.v_img.diff_b`` on Wan 2.2, which has no image cross attention."""
    verdict = outcome(model_of(WAN_22), "diffusion_model.blocks.12.cross_attn.v_img.diff_b", (H,), "Wan")
    assert (verdict["outcome"], verdict["targets"]) == ("absent", [])


def test_case_16_present_in_the_model_that_has_it():
    model = model_of(WAN, blocks__12__cross_attn__v_img__bias=(H,))
    verdict = outcome(model, "diffusion_model.blocks.12.cross_attn.v_img.diff_b", (H,), "diff")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [("blocks.12.cross_attn.v_img", None, None, None)]


def test_case_16_a_block_that_the_smaller_model_has_not():
    verdict = outcome(model_of(WAN), "diffusion_model.blocks.39.self_attn.q.diff", (H, H))
    assert (verdict["outcome"], verdict["targets"]) == ("absent", [])


@pytest.mark.parametrize(
    ("module", "stem"),
    [
        ("down_blocks.0.attentions.0.norm", "lora_unet_down_blocks_0_attentions_0_norm"),
        ("input_blocks.1.1.norm", "lora_unet_down_blocks_0_attentions_0_norm"),
        ("down_blocks.0.attentions.0.norm", "lycoris_down_blocks_0_attentions_0_norm"),
    ],
)
@pytest.mark.parametrize("ending", ["w_norm", "b_norm"])
def test_case_26_a_group_norm(module, stem, ending):
    """``lora_unet_down_blocks_0_attentions_0_norm.w_norm`` (LyCORIS)."""
    model = model_of({module: (H,)}, **{f"{module.replace('.', '__')}__bias": (H,)})
    verdict = outcome(model, f"{stem}.{ending}", (H,), "norm")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [(module, None, None, None)]


def test_case_27_the_bias_beside_the_factors():
    """``transformer_blocks.0.attn.to_q.lora_B.bias`` (PEFT's lora_bias, BFL's control LoRAs) goes with its pair."""
    module = "transformer_blocks.0.attn.to_q"
    model = model_of({module: (H, H)}, transformer_blocks__0__attn__to_q__bias=(H,))
    pair = {f"{module}.lora_A.weight": torch.ones(2, H), f"{module}.lora_B.weight": torch.ones(H, 2)}
    verdict = outcome(
        model, f"{module}.lora_B.bias", (H,), "bias", **{key.replace(".", "__"): v.shape for key, v in pair.items()}
    )
    assert verdict["outcome"] == "unsupported"
    assert verdict["targets"] == [
        {"module": module, "role": "up_bias", "rows": None, "cols": None, "layout": None},
    ]


@pytest.mark.parametrize("part", range(3))
def test_case_27_the_bias_of_a_part_of_qkv(part):
    """Split names on the fused model: the bias has the rows of its part, too."""
    stem = f"transformer_blocks.0.attn.to_{'qkv'[part]}"
    module = "double_blocks.0.img_attn.qkv"
    model = model_of({module: (3 * H, H)}, double_blocks__0__img_attn__qkv__bias=(3 * H,))
    tensors = factors(H, H).keyed(stem) | {f"{stem}.lora_B.bias": torch.ones(H)}
    verdict = told(model, tensors)[f"{stem}.lora_B.bias"]
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [(module, [part * H, (part + 1) * H], None, None)]


@pytest.mark.parametrize(
    ("module", "parameter"),
    [
        ("double_blocks.0.img_attn.norm.key_norm", "scale"),
        ("transformer_blocks.0.attn.norm_k", "weight"),
    ],
    ids=["native", "diffusers"],
)
def test_case_27_a_norms_scale_is_set(module, parameter):
    """``double_blocks.0.img_attn.norm.key_norm.scale`` (BFL's control LoRAs): the value itself, strength ignored."""
    model = model_of({}, **{f"{module.replace('.', '__')}__{parameter}": (H,)})
    verdict = outcome(model, "double_blocks.0.img_attn.norm.key_norm.scale", (H,), "whatever the strength")
    assert verdict["outcome"] == "unsupported"
    assert where(verdict) == [(module, None, None, None)]
    assert verdict["targets"][0]["role"] == "set"


@pytest.mark.parametrize(
    ("model_name", "stem"), [("img_in", "img_in"), ("x_embedder", "img_in"), ("img_in", "x_embedder")]
)
def test_case_28_a_control_lora_for_a_wider_img_in_is_refused(model_name, stem, sha256):
    """``img_in.lora_A.weight`` [128, 128] on 64 columns: the model has to be widened first. Both shapes are named, and
    no weight changes, not even those that fit."""
    model = model_of({model_name: (H, 64), "txt_in": (H, H)})
    before = sha256(model)
    tensors = factors(H, 128, rank=128).keyed(stem) | factors(H, H).keyed("txt_in")
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    message = str(error.value)
    assert message.startswith("[compose] ")
    for word in (f"'{stem}.lora_A.weight' [128, 128]", f"[{H}, 64]", f"'{model_name}'", "widened to 128 columns"):
        assert word in message
    with pytest.raises(AdapterError):
        lora_mmap.compose(model, [(tensors, 1.0)])
    assert sha256(model) == before
    assert told(model, tensors)[f"{stem}.lora_A.weight"]["outcome"] == "unsupported"


@pytest.mark.parametrize(
    "extra", [{"img_in.lora_B.bias": torch.ones(H)}, {"img_in.reshape_weight": torch.tensor([H, 128])}]
)
def test_case_28_with_all_that_a_control_lora_has(extra, sha256):
    """Its bias, or the shape that ComfyUI's converter writes beside it: refused all the same, both shapes named."""
    model = model_of({"img_in": (H, 64)}, img_in__bias=(H,))
    before = sha256(model)
    tensors = factors(H, 128, rank=128).keyed("img_in") | extra
    with pytest.raises(UnmatchedKeysError, match=rf"'img_in' has no weight \[{H}, 128\], expected \[{H}, 64\]"):
        lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    assert not lora_mmap.compose(model, [(tensors, 1.0)])
    assert sha256(model) == before
    assert {verdict["outcome"] for verdict in told(model, tensors).values()} == {"unsupported"}


def test_case_28_on_the_widened_model():
    model = model_of({"img_in": (H, 128)})
    before = model.img_in.weight.clone()
    pair = factors(H, 128, rank=128)
    lora_mmap.compose(model, [(pair.keyed("img_in"), 1.0)], strict=True)
    torch.testing.assert_close(model.img_in.weight - before, pair.delta)
