"""What loaders for quantised models are known to get wrong: each of these fails on that behaviour."""

import pytest
import torch
from branch_bounds import inputs, outputs, require_sum
from nunchaku_files import write, write_loha, write_lokr
from nunchaku_models import qwen_image
from nunchaku_modules import unpacked_down, unpacked_up
from quantised_state import quantised, state

import lora_mmap

QKV = "transformer_blocks.0.attn.to_qkv"
MODULATION = "transformer_blocks.0.img_mod.1"


@pytest.fixture
def model():
    return qwen_image(blocks=1, width=128)


@pytest.fixture(autouse=True)
def no_wish(monkeypatch):
    monkeypatch.delenv("QWENIMAGE_LORA_APPLY_AWQ_MOD", raising=False)


def test_nothing_applied_is_false(model, tmp_path):
    """compose_loras_v2 returned True whatever happened."""
    before = state(model)
    elsewhere = {"elsewhere.lora_A.weight": torch.ones(2, 8), "elsewhere.lora_B.weight": torch.ones(8, 2)}
    report = lora_mmap.compose_loras_v2(model, [(elsewhere, 1.0)])
    assert not report
    assert not lora_mmap.compose_loras_v2(model, [])
    assert state(model) == before


def test_every_adapter_is_read_parsed_and_classified_once(model, tmp_path):
    """The first one was loaded, parsed and classified twice, for a debug log and for the work."""
    paths = [write(tmp_path, model, "kohya", seed=seed)[0] for seed in range(3)]
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0) for path in paths])
    facts = report.to_dict()
    assert facts["files_opened"] == facts["headers_parsed"] == 3
    assert facts["keys_classified"] == sum(adapter["tensors"] for adapter in facts["adapters"])
    assert facts["bytes_read"] <= sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize("strength", [0.5, 0.0, -1.0, 1.0 - 1e-6])
def test_strengths_below_one_count(model, tmp_path, strength):
    """``(s - 1) < 1e-5`` without abs took all of them for 1."""
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write(tmp_path, model, "diffusers", parts=lambda part: "mod" not in part)
    lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    lora_mmap.set_lora_strength_v2(model, strength)
    require_sum(model, base, given, [(strength, deltas)], torch.bfloat16)


def test_a_strength_scales_the_adapters_ranks_and_no_others(model, tmp_path):
    """Columns of the packed tensors were scaled: some of the model's own ranks, and not all of the adapter's."""
    own = {name: (unpacked_down(module), unpacked_up(module)) for name, module in svdq(model).items()}
    path, _ = write(tmp_path, model, "kohya", ranks=(16,), parts=lambda part: "mod" not in part)
    lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    at_one = {name: (unpacked_down(module), unpacked_up(module)) for name, module in svdq(model).items()}
    lora_mmap.set_lora_strength_v2(model, 0.5)
    for name, module in svdq(model).items():
        down, up = unpacked_down(module), unpacked_up(module)
        assert torch.equal(down[:32], own[name][0])
        assert torch.equal(up[:, :32], own[name][1])
        assert torch.equal(down[32:], at_one[name][0][32:])
        assert torch.equal(up[:, 32:], at_one[name][1][:, 32:] * 0.5)
        assert at_one[name][1][:, 32:].abs().sum() > 0


def test_a_strength_survives_zero(model, tmp_path):
    """Multiplying what is there by the new strength over the old one cannot come back from 0."""
    path, _ = write(tmp_path, model, "kohya")
    lora_mmap.compose_loras_v2(model, [(path, 1.0)], apply_awq_mod=True)
    given = inputs(model)
    at_one = outputs(model, given)
    for strength in (0.0, 0.0, 1.0):
        lora_mmap.set_lora_strength_v2(model, strength)
    assert all(torch.equal(value, at_one[name]) for name, value in outputs(model, given).items())


def test_a_reset_takes_awq_layers_along(model, tmp_path):
    """Their bundles were missed by the reset, and leaked into what was composed next."""
    before, given = state(model), inputs(model)
    base = outputs(model, given)
    path, _ = write(tmp_path, model, "kohya", parts=lambda part: "mod" in part)
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)], apply_awq_mod=True)
    assert not torch.equal(model.get_submodule(MODULATION)(given[MODULATION]), base[MODULATION])
    assert lora_mmap.reset_lora_v2(model)
    assert state(model) == before
    assert torch.equal(model.get_submodule(MODULATION)(given[MODULATION]), base[MODULATION])


def test_nothing_leaks_from_one_composition_into_the_next(model, tmp_path):
    given = inputs(model)
    first, _ = write(tmp_path, model, "kohya", seed=1)
    second, _ = write(tmp_path, model, "diffusers", seed=2, parts=lambda part: part.endswith(("to_q", "img_mod.1")))
    lora_mmap.compose_loras_v2(model, [(second, 1.0)], apply_awq_mod=True)
    alone = outputs(model, given)
    lora_mmap.reset_lora_v2(model)
    lora_mmap.compose_loras_v2(model, [(first, 1.0)], apply_awq_mod=True)
    lora_mmap.compose_loras_v2(model, [(second, 1.0)], apply_awq_mod=True)
    assert all(torch.allclose(value, alone[name], rtol=1e-12) for name, value in outputs(model, given).items())


@pytest.mark.parametrize("parts", [("to_q",), ("to_q", "to_v"), ("to_q", "to_k", "to_v")], ids=["q", "q v", "q k v"])
def test_parts_of_other_ranks_and_alphas_and_missing_ones(model, tmp_path, parts):
    """q, k and v were all required, with one rank."""
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write(tmp_path, model, "kohya", ranks=(2, 7, 16), parts=lambda part: part.endswith(parts))
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    assert report.applied == len(parts)
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)


def test_interleaved_modulation_is_met(model, tmp_path):
    """Planar rows put into an interleaved output turn images to noise."""
    path, deltas = write(tmp_path, model, "diffusers", parts=lambda part: part.endswith("img_mod.1"), size=0.3)
    x = torch.randn(2, 128, dtype=torch.float64)
    layer = model.get_submodule(MODULATION)
    base = layer(x)
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)], apply_awq_mod=True)
    gained = (layer(x) - base).view(2, -1, 6).transpose(1, 2).reshape(2, -1)
    torch.testing.assert_close(gained, x @ deltas.planar(MODULATION).t(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("argument", "variable", "applied"),
    [("auto", None, False), ("auto", "1", True), ("auto", "0", False), (True, None, True), (False, "1", False)],
    ids=["default", "variable", "variable off", "argument", "argument wins"],
)
def test_awq_modulation_is_left_alone_unless_asked_for(model, tmp_path, monkeypatch, argument, variable, applied):
    if variable is not None:
        monkeypatch.setenv("QWENIMAGE_LORA_APPLY_AWQ_MOD", variable)
    path, _ = write(tmp_path, model, "kohya", parts=lambda part: part.endswith(("img_mod.1", "to_q")))
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)], apply_awq_mod=argument)
    assert (MODULATION in report.to_dict()["modules"]) == applied
    key = report.to_dict()["keys"]["lora_unet_transformer_blocks_0_img_mod_1.lora_up.weight"]
    assert key["outcome"] == ("applied" if applied else "ignored")
    if not applied:
        assert "QWENIMAGE_LORA_APPLY_AWQ_MOD" in key["reason"]
        assert "AWQ" in str(report)


@pytest.mark.parametrize("writing", [write_loha, write_lokr], ids=["loha", "lokr"])
def test_lycoris_files_are_not_skipped(model, tmp_path, writing):
    given = inputs(model)
    base = outputs(model, given)
    parts = ("attn.to_k", "to_out.0", "img_mlp.net.2", "txt_mod.1")
    path, deltas = writing(tmp_path, model, lambda part: part.endswith(parts))
    report = lora_mmap.compose_loras_v2(model, [(path, 0.8)], apply_awq_mod=True)
    assert report.applied == 4
    require_sum(model, base, given, [(0.8, deltas)], torch.bfloat16)


def svdq(model):
    return {name: module for name, module in quantised(model).items() if hasattr(module, "proj_down")}
