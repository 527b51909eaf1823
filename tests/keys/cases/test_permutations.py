"""Where a file and a model have the same matrix with its rows in another order: cases 5, 6 and 34."""

import pytest
import torch
from file_tensors import factors, kohya
from small_models import H, composed, model_of, same, where

NATIVE_FINAL = "final_layer.adaLN_modulation.1"
# A module that only this family has beside its final layer: several have a final layer of these names.
FINAL_LAYERS = {
    "flux1": ("transformer_blocks.0.norm1.linear", 6),
    "flux2": ("double_stream_modulation_img.linear", 6),
    "sd3": ("transformer_blocks.0.norm1.linear", 6),
    "hunyuan_video": ("transformer_blocks.0.norm1.linear", 6),
}


def halves_swapped(matrix):
    return torch.cat([matrix[matrix.shape[0] // 2 :], matrix[: matrix.shape[0] // 2]])


@pytest.mark.parametrize("family", FINAL_LAYERS)
@pytest.mark.parametrize(
    "stem",
    [
        "lora_unet_final_layer_adaLN_modulation_1",
        "diffusion_model.final_layer.adaLN_modulation.1",
        "base_model.model.final_layer.adaLN_modulation.1",
    ],
)
def test_case_05_shift_and_scale_of_the_final_layer_change_places(stem, family):
    """``lora_unet_final_layer_adaLN_modulation_1.lora_up.weight``: shift before scale natively, after it in diffusers'
    ``norm_out.linear`` (Flux.1, Flux.2, SD3, HunyuanVideo)."""
    beside, width = FINAL_LAYERS[family]
    pair = factors(2 * H, H, rank=3, alpha=1)
    model = model_of({beside: (width * H, H), "norm_out.linear": (2 * H, H)})
    added, keys = composed(model, kohya(stem, pair))
    same(added["norm_out.linear"], halves_swapped(pair.delta))
    assert where(keys[f"{stem}.lora_up.weight"]) == [("norm_out.linear", None, None, "swapped halves")]


@pytest.mark.parametrize("stem", ["transformer.norm_out.linear", "lora_transformer_norm_out_linear"])
def test_case_05_and_back(stem):
    pair = factors(2 * H, H, alpha=5)
    added, keys = composed(model_of({NATIVE_FINAL: (2 * H, H)}), kohya(stem, pair))
    same(added[NATIVE_FINAL], halves_swapped(pair.delta))
    assert where(keys[f"{stem}.alpha"]) == [(NATIVE_FINAL, None, None, "swapped halves")]


def test_case_05_nothing_changes_places_on_the_naming_it_was_trained_on():
    pair = factors(2 * H, H)
    added, _ = composed(model_of({NATIVE_FINAL: (2 * H, H)}), pair.keyed(f"diffusion_model.{NATIVE_FINAL}"))
    same(added[NATIVE_FINAL], pair.delta)
    added, _ = composed(model_of({"norm_out.linear": (2 * H, H)}), pair.keyed("transformer.norm_out.linear"))
    same(added["norm_out.linear"], pair.delta)


def test_the_last_text_modulation_of_sd3():
    """Shift and scale alone, where the other blocks have six vectors in the same order on both sides: the rows tell."""
    stem = "diffusion_model.joint_blocks.{}.context_block.adaLN_modulation.1"
    six, two = factors(6 * H, H), factors(2 * H, H)
    modules = [f"transformer_blocks.{i}.norm1_context.linear" for i in (22, 23)]
    model = model_of({modules[0]: (6 * H, H), modules[1]: (2 * H, H)})
    added, _ = composed(model, six.keyed(stem.format(22)) | two.keyed(stem.format(23)))
    same(added[modules[0]], six.delta)
    same(added[modules[1]], halves_swapped(two.delta))


NUNCHAKU = {
    "transformer_blocks.0.qkv_proj": (3 * H, H),
    "transformer_blocks.0.norm1.linear": (6 * H, H),
    "transformer_blocks.0.norm1_context.linear": (6 * H, H),
    "single_transformer_blocks.0.norm.linear": (3 * H, H),
}


def interleaved(matrix, pieces):
    """Row ``d * pieces + j`` is row ``j * width + d``: Nunchaku keeps the modulation of a channel together."""
    width = matrix.shape[0] // pieces
    return torch.stack([matrix[j * width + d] for d in range(width) for j in range(pieces)])


@pytest.mark.parametrize(
    ("module", "pieces", "stems"),
    [
        ("transformer_blocks.0.norm1.linear", 6, ["transformer.{}", "diffusion_model.double_blocks.0.img_mod.lin"]),
        (
            "transformer_blocks.0.norm1_context.linear",
            6,
            ["transformer.{}", "lora_unet_double_blocks_0_txt_mod_lin"],
        ),
        (
            "single_transformer_blocks.0.norm.linear",
            3,
            ["base_model.model.{}", "lora_unet_single_blocks_0_modulation_lin"],
        ),
    ],
)
def test_case_06_nunchaku_interleaves_the_rows_of_flux_modulation(module, pieces, stems):
    """``norm1.linear.lora_B.weight`` on Nunchaku's Flux: rows 0, 3072, 6144, ..., 1, 3073, ...; single blocks by 3."""
    for stem in stems:
        stem = stem.format(module)
        pair = factors(pieces * H, H, rank=3, alpha=6)
        added, keys = composed(model_of(NUNCHAKU), kohya(stem, pair))
        same(added[module], interleaved(pair.delta, pieces))
        assert where(keys[f"{stem}.lora_up.weight"]) == [(module, None, None, f"interleaved by {pieces}")]


def test_case_06_diffusers_flux_does_not():
    """The same path on a model without Nunchaku's marks."""
    pair = factors(6 * H, H)
    module = "transformer_blocks.0.norm1.linear"
    added, _ = composed(model_of({module: (6 * H, H)}), pair.keyed(f"transformer.{module}"))
    same(added[module], pair.delta)


@pytest.mark.parametrize("side", ["img", "txt"])
def test_nunchaku_interleaves_the_rows_of_qwen_image_modulation(side):
    """Told by the packed weight of the first block's modulation."""
    module = f"transformer_blocks.1.{side}_mod.1"
    model = model_of({module: (6 * H, H)}, transformer_blocks__0__img_mod__1__qweight=(4, 4))
    pair = factors(6 * H, H, alpha=1)
    added, _ = composed(model, kohya(f"lora_unet_transformer_blocks_1_{side}_mod_1", pair))
    same(added[module], interleaved(pair.delta, 6))


H3_NATIVE = {"blocks.0.adaln_proj.linear": (H, H), "blocks.0.mlp.fc1": (4 * H, H)}
H3_DIFFUSERS = {"transformer_blocks.0.adaln_proj.linear": (H, H), "transformer_blocks.0.ff.net.0.proj": (4 * H, H)}


@pytest.mark.parametrize(
    ("stem", "modules"),
    [
        ("diffusion_model.blocks.0.mlp.fc1", H3_DIFFUSERS),
        ("lora_unet_blocks_0_mlp_fc1", H3_DIFFUSERS),
        ("transformer.transformer_blocks.0.ff.net.0.proj", H3_NATIVE),
    ],
)
def test_case_34_minimax_h3_mlp_halves_change_places(stem, modules):
    """``mlp.fc1`` has the gate first, diffusers' SwiGLU the value."""
    module = list(modules)[1]
    pair = factors(4 * H, H, alpha=1)
    added, keys = composed(model_of(modules), kohya(stem, pair))
    same(added[module], halves_swapped(pair.delta))
    assert where(keys[f"{stem}.lora_down.weight"]) == [(module, None, None, "swapped halves")]


@pytest.mark.parametrize(
    ("stem", "modules"),
    [
        ("diffusion_model.blocks.0.mlp.fc1", H3_NATIVE),
        ("transformer.transformer_blocks.0.ff.net.0.proj", H3_DIFFUSERS),
        # PixArt's, with the MLP not gated and nothing to swap
        ("base_model.model.blocks.0.mlp.fc1", {"x": (1, 1), "transformer_blocks.0.ff.net.0.proj": (4 * H, H)}),
    ],
)
def test_case_34_where_they_do_not(stem, modules):
    module = list(modules)[1]
    pair = factors(4 * H, H)
    added, _ = composed(model_of(modules), pair.keyed(stem))
    same(added[module], pair.delta)


HEAD, HEADS = 128, 2  # every published MiniMax-H3 has heads of 128 features
H3_QKV = {"blocks.0.adaln_proj.linear": (H, H), "blocks.0.attn.qkv_proj": (3 * HEADS * HEAD, H)}
H3_SPLIT = {"transformer_blocks.0.adaln_proj.linear": (H, H)} | {
    f"transformer_blocks.0.attn.to_{x}": (HEADS * HEAD, H) for x in "qkv"
}


def stacked(matrix):
    """Rows [q of the first head, k of the first head, ..., v of the last head] as [all q; all k; all v]."""
    parts = [matrix[begin : begin + HEAD] for begin in range(0, matrix.shape[0], HEAD)]
    return torch.cat([part for piece in range(3) for part in parts[piece::3]])


@pytest.mark.parametrize("modules", [H3_QKV, H3_SPLIT], ids=["native", "diffusers"])
@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_case_34_diffsynth_qkv_is_interleaved_by_heads(prefix, modules):
    """Same names and shapes as everybody's; only PEFT's ``.default.`` in the keys says that DiffSynth wrote it."""
    pair = factors(3 * HEADS * HEAD, H)
    stem = f"{prefix}blocks.0.attn.qkv_proj"
    tensors = {f"{stem}.lora_A.default.weight": pair.down, f"{stem}.lora_B.default.weight": pair.up}
    added, keys = composed(model_of(modules), tensors)
    same(torch.cat([added[module] for module in list(modules)[1:]]), stacked(pair.delta))
    targets = keys[f"{stem}.lora_B.default.weight"]["targets"]
    assert [target["module"] for target in targets] == list(modules)[1:]
    assert all(target["layout"] for target in targets)


@pytest.mark.parametrize("modules", [H3_QKV, H3_SPLIT], ids=["native", "diffusers"])
@pytest.mark.parametrize("stem", ["diffusion_model.blocks.0.attn.qkv_proj", "lora_unet_blocks_0_attn_qkv_proj"])
def test_case_34_everybody_elses_qkv_is_stacked(stem, modules):
    pair = factors(3 * HEADS * HEAD, H, alpha=1)
    added, keys = composed(model_of(modules), kohya(stem, pair))
    same(torch.cat([added[module] for module in list(modules)[1:]]), pair.delta)
    assert {target["layout"] for target in keys[f"{stem}.alpha"]["targets"]} == {None}


def test_case_34_default_means_nothing_of_the_kind_in_another_family():
    pair = factors(3 * HEADS * HEAD, H)
    tensors = {f"layers.0.attention.qkv.lora_{x}.default.weight": f for x, f in zip("AB", pair[:2], strict=True)}
    added, _ = composed(model_of({"layers.0.attention.qkv": (3 * HEADS * HEAD, H)}), tensors)
    same(added["layers.0.attention.qkv"], pair.delta)
