"""Tensors for a bias, a norm or a parameter of a module's own: cases 14, 15, 16, 26, 27 and 28."""

import pytest
import torch
from file_tensors import factors
from small_models import H, composed, model_of, same, told, where

import lora_mmap
from lora_mmap.errors import AdapterError, UnmatchedKeysError


def added(model, key, shape, strength=0.5):
    """The verdict on ``key``, having checked that its values, times the strength, are all that changed."""
    values = torch.randn(shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change, keys = composed(model, {key: values}, strength)
    (changed,) = [value for value in change.values() if value.any()]
    same(changed, (values.double() * strength).reshape(changed.shape))
    assert lora_mmap.reset(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return keys[key]


def left_alone(model, key, shape):
    """The verdict on a key that has no place; composing strictly raises, composing changes nothing."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnmatchedKeysError):
        lora_mmap.compose(model, [({key: torch.ones(shape)}, 1.0)], strict=True)
    assert not lora_mmap.compose(model, [({key: torch.ones(shape)}, 1.0)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return told(model, {key: torch.ones(shape)})[key]


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
    verdict = added(model, "diffusion_model.blocks.12.diff_m", (1, 6, H))
    assert where(verdict) == [(parameter.replace("__", "."), None, None, None)]


def test_case_14_the_heads_modulation():
    """``head.diff_m``; the parameter may be the first and only one of the model."""
    model = model_of({}, head__modulation=(1, 2, H))
    verdict = added(model, "diffusion_model.head.diff_m", (1, 2, H))
    assert where(verdict) == [("head.modulation", None, None, None)]


@pytest.mark.parametrize("key", ["diffusion_model.blocks.12.modulation.diff", "blocks.12.modulation.diff"])
def test_case_14_by_the_parameters_own_name(key):
    verdict = added(model_of(WAN, blocks__12__modulation=(1, 6, H)), key, (1, 6, H))
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
    verdict = added(model_of(modules), "diffusion_model.blocks.12.cross_attn.norm_k_img.diff", (H,))
    assert where(verdict) == [(module, None, None, None)]


def test_case_16_absent_in_this_model_and_not_an_unknown_format():
    """``diffusion_model.blocks.17.cross_attn.v_img.diff_b`` on Wan 2.2, which has no image cross attention."""
    verdict = left_alone(model_of(WAN_22), "diffusion_model.blocks.12.cross_attn.v_img.diff_b", (H,))
    assert "Wan" in verdict["reason"]
    assert (verdict["outcome"], verdict["targets"]) == ("absent", [])


def test_case_16_present_in_the_model_that_has_it():
    model = model_of(WAN, blocks__12__cross_attn__v_img__bias=(H,))
    verdict = added(model, "diffusion_model.blocks.12.cross_attn.v_img.diff_b", (H,))
    assert where(verdict) == [("blocks.12.cross_attn.v_img", None, None, None)]


def test_case_16_a_block_that_the_smaller_model_has_not():
    verdict = left_alone(model_of(WAN), "diffusion_model.blocks.39.self_attn.q.diff", (H, H))
    assert (verdict["outcome"], verdict["targets"]) == ("absent", [])


def test_case_16_a_bias_that_the_module_has_not():
    """The difference beside it is fused all the same; strictly, it is an error."""
    model, stem = model_of(WAN), "diffusion_model.blocks.12.self_attn.q"
    tensors = {f"{stem}.diff": torch.randn(H, H), f"{stem}.diff_b": torch.randn(H)}
    name = "blocks.12.self_attn.q.weight"
    before = model.state_dict()[name].clone()
    with pytest.raises(UnmatchedKeysError, match="has no bias"):
        lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    keys = lora_mmap.compose(model, [(tensors, 1.0)]).to_dict()["keys"]
    assert (keys[f"{stem}.diff"]["outcome"], keys[f"{stem}.diff_b"]["outcome"]) == ("applied", "absent")
    assert "'blocks.12.self_attn.q' has no bias" in keys[f"{stem}.diff_b"]["reason"]
    same(model.state_dict()[name] - before, tensors[f"{stem}.diff"].double())


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
    verdict = added(model, f"{stem}.{ending}", (H,))
    assert where(verdict) == [(module, None, None, None)]


def test_case_27_the_bias_beside_the_factors():
    """``transformer_blocks.0.attn.to_q.lora_B.bias`` (PEFT, BFL's control LoRAs) is scaled with its pair."""
    module = "transformer_blocks.0.attn.to_q"
    model = model_of({module: (H, H)}, transformer_blocks__0__attn__to_q__bias=(H,))
    pair, bias = factors(H, H, alpha=1), torch.randn(H)
    change, keys = composed(model, pair.keyed(module) | {f"{module}.lora_B.bias": bias}, 0.5)
    same(change[module], 0.5 * pair.delta)
    same(change[f"{module}.bias"], 0.5 * 0.5 * bias.double())
    assert keys[f"{module}.lora_B.bias"]["targets"] == [
        {"module": module, "role": "up_bias", "rows": None, "cols": None, "layout": None},
    ]


@pytest.mark.parametrize("part", range(3))
def test_case_27_the_bias_of_a_part_of_qkv(part):
    """Split names on the fused model: the bias has the rows of its part, too."""
    stem = f"transformer_blocks.0.attn.to_{'qkv'[part]}"
    module = "double_blocks.0.img_attn.qkv"
    model = model_of({module: (3 * H, H)}, double_blocks__0__img_attn__qkv__bias=(3 * H,))
    pair, bias = factors(H, H), torch.randn(H)
    change, keys = composed(model, pair.keyed(stem) | {f"{stem}.lora_B.bias": bias})
    rows = slice(part * H, (part + 1) * H)
    expected = torch.zeros(3 * H, dtype=torch.float64)
    expected[rows] = bias.double()
    same(change[f"{module}.bias"], expected)
    same(change[module][rows], pair.delta)
    assert where(keys[f"{stem}.lora_B.bias"]) == [(module, [part * H, (part + 1) * H], None, None)]


@pytest.mark.parametrize("strength", [1.0, -0.3])
@pytest.mark.parametrize(
    ("module", "parameter"),
    [
        ("double_blocks.0.img_attn.norm.key_norm", "scale"),
        ("transformer_blocks.0.attn.norm_k", "weight"),
    ],
    ids=["native", "diffusers"],
)
def test_case_27_a_norms_scale_is_set(module, parameter, strength, sha256):
    """``double_blocks.0.img_attn.norm.key_norm.scale`` (BFL's control LoRAs): the value itself, strength ignored."""
    name = f"{module}.{parameter}"
    model = model_of({}, **{name.replace(".", "__"): (H,)})
    before, key, value = sha256(model), "double_blocks.0.img_attn.norm.key_norm.scale", torch.randn(H)
    _, keys = composed(model, {key: value}, strength)
    assert torch.equal(model.state_dict()[name], value.double())
    assert where(keys[key]) == [(module, None, None, None)]
    assert keys[key]["targets"][0]["role"] == "set"
    assert lora_mmap.reset(model)
    assert sha256(model) == before


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


def test_case_28_with_a_bias_too(sha256):
    """Refused all the same, both shapes named."""
    model = model_of({"img_in": (H, 64)}, img_in__bias=(H,))
    before = sha256(model)
    tensors = factors(H, 128, rank=128).keyed("img_in") | {"img_in.lora_B.bias": torch.ones(H)}
    for strict in (True, False):
        with pytest.raises(
            AdapterError, match=rf"weight is \[{H}, 128\], expected \[{H}, 64\].*widened to 128 columns"
        ):
            lora_mmap.compose(model, [(tensors, 1.0)], strict=strict)
    assert sha256(model) == before
    assert {verdict["outcome"] for verdict in told(model, tensors).values()} == {"unsupported"}


def test_case_28_with_the_shape_that_comfyui_writes_beside_it(sha256):
    """ComfyUI's converter adds ``reshape_weight``, with which it widens the model's weight: we do not."""
    model = model_of({"img_in": (H, 64)}, img_in__bias=(H,))
    before = sha256(model)
    tensors = factors(H, 128, rank=128).keyed("img_in") | {"img_in.reshape_weight": torch.tensor([H, 128])}
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
