"""Quantised models with adapters beside their weights: base + sum of s_k * B_k @ A_k @ x, against float64."""

import pytest
import torch
from branch_bounds import inputs, outputs, require_sum
from nunchaku_files import write
from nunchaku_models import flux, qwen_image, z_image
from quantised_state import pointers, state
from safetensors.torch import load_file

import lora_mmap

DIALECTS = ("kohya", "diffusers", "peft", "comfyui", "comfyui_kohya_words")
STRENGTHS = (0.7, -0.4, 1.0, 0.05, 2.0)
MODELS = {
    "qwen_image": lambda dtype: qwen_image(blocks=2, width=128, dtype=dtype),
    "flux": lambda dtype: flux(1, 2, 128, dtype=dtype),
    "z_image": lambda dtype: z_image(1, 128, dtype=dtype),
    "z_image_comfyui": lambda dtype: z_image(1, 128, comfy=True, dtype=dtype),
}


def adapters(model, folder, count, dtype, **kwargs):
    """Files in as many dialects, of other ranks and alphas each, and what they add."""
    made = [
        write(folder, model, DIALECTS[i % 5], ranks=(4 + i, 9, 5, 17), seed=i, dtype=dtype, **kwargs)
        for i in range(count)
    ]
    entries = [(path, strength) for (path, _), strength in zip(made, STRENGTHS, strict=False)]
    terms = [(strength, deltas) for (_, deltas), strength in zip(made, STRENGTHS, strict=False)]
    return entries, terms


@pytest.mark.parametrize(
    ("dtype", "count"),
    [(torch.bfloat16, 1), (torch.bfloat16, 2), (torch.bfloat16, 5), (torch.float16, 2)],
    ids=["bf16-1", "bf16-2", "bf16-5", "fp16-2"],
)
@pytest.mark.parametrize("kind", MODELS)
def test_every_layer_gains_the_sum(tmp_path, kind, dtype, count):
    model = MODELS[kind](dtype)
    given, before = inputs(model), state(model)
    base = outputs(model, given)
    entries, terms = adapters(model, tmp_path, count, torch.float32)
    report = lora_mmap.compose_loras_v2(model, entries, apply_awq_mod=True)
    assert report
    keys = report.to_dict()["keys"]
    assert {found["outcome"] for found in keys.values()} == {"applied"}
    require_sum(model, base, given, terms, dtype)
    assert lora_mmap.reset_lora_v2(model)
    assert state(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def test_factors_of_any_dtype(tmp_path, dtype):
    model = qwen_image(blocks=1, width=128)
    given = inputs(model)
    base = outputs(model, given)
    entries, terms = adapters(model, tmp_path, 2, dtype)
    assert lora_mmap.compose(model, entries, apply_awq_mod=True)
    require_sum(model, base, given, terms, torch.bfloat16)


def test_real_widths(tmp_path):
    """Two blocks of Qwen-Image, a layer of each kind, two dialects at once."""
    model = qwen_image(blocks=2, width=3072)
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "img_mod.1", "to_add_out")
    given = {
        name: x
        for name, x in inputs(model).items()
        if name.startswith("transformer_blocks.1.") and name.endswith(("to_qkv", "img_mod.1"))
    }
    base = {name: model.get_submodule(name)(x) for name, x in given.items()}
    entries, terms = adapters(model, tmp_path, 2, torch.bfloat16, parts=lambda part: part.endswith(names))
    assert lora_mmap.compose_loras_v2(model, entries, apply_awq_mod=True)
    for name, x in given.items():
        expected = base[name] + sum(strength * x @ deltas[name].t() for strength, deltas in terms)
        added = expected - base[name]
        error = (model.get_submodule(name)(x) - expected).norm() / added.norm()
        assert error < 2.0**-8, name
        assert added.norm() > 1e-3 * base[name].norm()


def test_a_whole_model_computes_with_the_planar_modulation(tmp_path):
    """The modulation that the block reads is what the file's own order of rows says."""
    quantised, plain = (qwen_image(blocks=1, width=128, text_width=64, awq=awq) for awq in (True, False))
    wanted = {"img_mod.1", "txt_mod.1"}
    path, deltas = write(tmp_path, plain, "kohya", parts=lambda part: part.endswith(tuple(wanted)), size=0.2)
    with torch.no_grad():  # one weight, in both orders of rows
        for name in ("transformer_blocks.0.img_mod.1", "transformer_blocks.0.txt_mod.1"):
            woven, planar = quantised.get_submodule(name), plain.get_submodule(name)
            rows = torch.arange(6 * 128).reshape(6, 128).t().reshape(-1)
            planar.weight.data = torch.empty(6 * 128, 128, dtype=torch.float64)
            planar.weight[rows] = woven.dequantised()
            planar.bias.data = torch.empty(6 * 128, dtype=torch.float64)
            planar.bias[rows] = woven.bias.double()
        x = torch.randn(2, 128, dtype=torch.float64)
        for name in deltas:
            planar = plain.get_submodule(name)
            planar.weight += deltas.planar(name)
        assert lora_mmap.compose_loras_v2(quantised, [(path, 1.0)], apply_awq_mod=True)
        for name in deltas:
            out = quantised.get_submodule(name)(x)
            read = out.view(2, -1, 6).transpose(1, 2).reshape(2, -1)
            torch.testing.assert_close(read, plain.get_submodule(name)(x), rtol=2e-2, atol=2e-2)
            assert (out - plain.get_submodule(name)(x)).norm() > 0.1 * out.norm()  # the order matters


def test_missing_parts_and_one_part_alone(tmp_path):
    model = qwen_image(blocks=1, width=128)
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write(tmp_path, model, "diffusers", parts=lambda part: part.endswith(("to_k", "add_v_proj")))
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)


def test_the_same_file_twice_adds_up(tmp_path):
    model = qwen_image(blocks=1, width=128)
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write(tmp_path, model, "kohya", parts=lambda part: "mod" not in part)
    report = lora_mmap.compose_loras_v2(model, [(path, 0.5), (path, 0.25)])
    assert report.files_opened == 1
    require_sum(model, base, given, [(0.5, deltas), (0.25, deltas)], torch.bfloat16)


def test_planning_sixty_blocks_on_meta(tmp_path):
    """All 720 modules of the real model find their place; nothing is on the device to be written to."""
    small = qwen_image(blocks=1, width=128)
    path, _ = write(tmp_path, small, "kohya", parts=lambda part: "transformer_blocks" in part and "mod" not in part)
    widened = {
        key: value.new_ones([3072 * n // 128 if n >= 128 else n for n in value.shape])
        for key, value in load_file(str(path)).items()
    }
    tensors = {
        key.replace("blocks_0_", f"blocks_{block}_"): value for block in range(60) for key, value in widened.items()
    }
    model = qwen_image(blocks=60, width=3072, device="meta")
    report = lora_mmap.check(model, tensors)
    modules = report.to_dict()["modules"]
    assert report.applied == 720
    assert len(modules) == 480
    assert {found["target"] for found in modules.values()} == {"svdquant"}
    assert modules["transformer_blocks.59.attn.to_qkv"]["rank"] == 32  # 4 + 8 + 5 ranks, in tiles of 16
    report = lora_mmap.compose(model, [(tensors, 1.0)])
    assert not report
    assert "meta" in report.to_dict()["keys"]["lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight"]["reason"]
    assert not pointers(model)["transformer_blocks.0.attn.to_qkv"][0]
