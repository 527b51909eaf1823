"""Where ComfyUI (2026-01), Nunchaku and InvokeAI are wrong about a file's names. None of them is installed.

Of arithmetic, and so not here: ComfyUI norms DoRA's output axis by the weight before its change, LyCORIS' merge helper
scales LoHa and LoKr twice. Lumina 2's unequal thirds, which ComfyUI takes for equal ones, are case 29.
"""

import pytest
import torch
from file_tensors import PEFT, factors, kohya
from small_models import H, composed, model_of, same, where

SDXL = "down_blocks.1.attentions.0.transformer_blocks.0."
SDXL_NATIVE = "input_blocks.4.1.transformer_blocks.0."


@pytest.mark.parametrize(
    "endings",
    [
        PEFT,
        ("lora.down.weight", "lora.up.weight"),
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ],
    ids=["PEFT", "lora.down", "linear_layer"],
)
@pytest.mark.parametrize(
    "path", ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2"]
)
def test_comfyui_reads_none_of_the_keys_of_sdxl_by_peft(path, endings):
    """``unet.down_blocks...attn1.to_q.lora_A.weight``: all of them are applied, on ComfyUI's own naming too."""
    for level in (SDXL, SDXL_NATIVE):
        pair = factors(H, H + 1, rank=3)
        stem = f"unet.{SDXL}{path}"
        added, keys = composed(model_of({level + path: (H, H + 1)}), pair.keyed(stem, endings))
        same(added[level + path], pair.delta)
        assert where(keys[f"{stem}.{endings[1]}"]) == [(level + path, None, None, None)]


Z_IMAGE_MUSUBI = {  # path of the diffusers model -> (native module, rows of it in widths)
    "layers.0.attention.to_q": ("layers.0.attention.qkv", (0, 1)),
    "layers.0.attention.to_v": ("layers.0.attention.qkv", (2, 3)),
    "layers.0.attention.to_out.0": ("layers.0.attention.out", None),
    "layers.0.feed_forward.w1": ("layers.0.feed_forward.w1", None),
    "layers.0.adaLN_modulation.0": ("layers.0.adaLN_modulation.0", None),
    "noise_refiner.0.attention.to_k": ("noise_refiner.0.attention.qkv", (1, 2)),
    "context_refiner.1.attention.to_out.0": ("context_refiner.1.attention.out", None),
    "all_x_embedder.2-1": ("x_embedder", None),
    "all_final_layer.2-1.linear": ("final_layer.linear", None),
}


@pytest.mark.parametrize("path", Z_IMAGE_MUSUBI)
def test_comfyui_leaves_most_of_z_image_by_musubi_out(path):
    """``lora_unet_layers_0_attention_to_q``: 360 of 630 keys find no place in ComfyUI (its issue 11487)."""
    module, widths = Z_IMAGE_MUSUBI[path]
    pair = factors(H, H, alpha=1)
    stem = f"lora_unet_{path.replace('.', '_')}"
    added, keys = composed(model_of({module: (3 * H if widths else H, H)}), kohya(stem, pair))
    rows = [widths[0] * H, widths[1] * H] if widths else None
    same(added[module][slice(*rows)] if rows else added[module], pair.delta)
    assert added[module].count_nonzero() == H * H
    assert where(keys[f"{stem}.lora_up.weight"]) == [(module, rows, None, None)]


NUNCHAKU = {
    "transformer_blocks.0.qkv_proj": (3 * H, H),
    "transformer_blocks.0.out_proj_context": (H, H),
    "transformer_blocks.0.mlp_fc1": (4 * H, H),
    "single_transformer_blocks.0.qkv_proj": (3 * H, H),
    "single_transformer_blocks.0.mlp_fc1": (4 * H, H),
    "single_transformer_blocks.0.out_proj": (H, H),
    "single_transformer_blocks.0.mlp_fc2": (H, 4 * H),
}


@pytest.mark.parametrize("prefix", ["base_model.model.", "diffusion_model."])
def test_nunchaku_lets_bfl_names_reach_no_quantised_block(prefix):
    """Names of Black Forest Labs behind PEFT's or ComfyUI's prefix, on a model with Nunchaku's names."""
    qkv, out, mlp = factors(3 * H, H), factors(H, H), factors(4 * H, H)
    first, last = factors(7 * H, H), factors(H, 5 * H)
    tensors = (
        qkv.keyed(f"{prefix}double_blocks.0.img_attn.qkv")
        | out.keyed(f"{prefix}double_blocks.0.txt_attn.proj")
        | mlp.keyed(f"{prefix}double_blocks.0.img_mlp.0")
        | first.keyed(f"{prefix}single_blocks.0.linear1")
        | last.keyed(f"{prefix}single_blocks.0.linear2")
    )
    added, _ = composed(model_of(NUNCHAKU), tensors)
    expected = [
        qkv.delta,
        out.delta,
        mlp.delta,
        first.delta[: 3 * H],
        first.delta[3 * H :],
        last.delta[:, :H],
        last.delta[:, H:],
    ]
    for module, delta in zip(NUNCHAKU, expected, strict=True):
        same(added[module], delta)


def test_nunchaku_drops_the_scale_of_dora_without_a_word():
    """The factors alone are not what was trained: the rows get the norms that were."""
    stem, pair, magnitude = "transformer.transformer_blocks.0.attn.to_q", factors(H, H), torch.rand(H, 1) + 0.5
    tensors = pair.keyed(stem) | {f"{stem}.dora_scale": magnitude}
    model = model_of(NUNCHAKU)
    weight = model.state_dict()["transformer_blocks.0.qkv_proj.weight"]
    _, keys = composed(model, tensors)
    same(weight[:H].norm(dim=1, keepdim=True), magnitude.double())
    for verdict in keys.values():
        assert "DoRA" in verdict["reason"]
        assert where(verdict) == [("transformer_blocks.0.qkv_proj", [0, H], None, None)]


INVOKE = ["", "transformer.", "diffusion_model.", "base_model.model.", "lora_unet_", "lora_transformer_", "lycoris_"]


@pytest.mark.parametrize("prefix", [*INVOKE, "base_model.model.transformer.", "model.diffusion_model."])
@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("transformer_blocks.0.img_mlp.net.0.proj", "transformer_blocks.0.img_mlp.net.0.proj"),
        ("transformer_blocks.0.txt_mod.1", "transformer_blocks.0.txt_mod.1"),
        ("layers.0.attention.to_out.0", "layers.0.attention.to_out.0"),
        ("noise_refiner.0.feed_forward.w3", "noise_refiner.0.feed_forward.w3"),
    ],
)
def test_invokeai_drops_prefixes_of_qwen_and_z_image_that_it_does_not_know(path, module, prefix):
    pair = factors(H, H, alpha=1)
    stem = prefix + (path.replace(".", "_") if prefix.endswith("_") else path)
    added, keys = composed(model_of({module: (H, H)}), kohya(stem, pair))
    same(added[module], pair.delta)
    assert where(keys[f"{stem}.alpha"]) == [(module, None, None, None)]
