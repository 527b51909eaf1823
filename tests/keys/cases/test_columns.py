"""Where a file and a model disagree on which input features share a matrix: cases 3 and 4."""

import pytest
import torch
from file_tensors import factors, kohya
from small_models import H, composed, model_of, same, told, where

SINGLE = "single_transformer_blocks.0."
NUNCHAKU = {f"{SINGLE}out_proj": (H, H), f"{SINGLE}mlp_fc2": (H, 4 * H), "transformer_blocks.0.qkv_proj": (3 * H, H)}
# Told from Flux.2, whose attn.to_out is all of it, by the packed weight of its modulation.
NUNCHAKU_2 = {
    f"{SINGLE}attn.to_out": (H, H),
    f"{SINGLE}mlp_fc2": (H, 4 * H),
    "transformer_blocks.0.norm1.linear.qweight": (4, 4),
}

USO_PROJ = "single_blocks.0.processor.proj_lora"


@pytest.mark.parametrize("module", ["single_blocks.0.linear2", f"{SINGLE}proj_out"])
def test_case_03_uso_proj_lora_is_all_of_linear2(module):
    """``single_blocks.0.processor.proj_lora.down.weight``: attention's and the MLP's 5 widths of input features."""
    pair = factors(H, 5 * H)
    tensors = {f"{USO_PROJ}.down.weight": pair.down, f"{USO_PROJ}.up.weight": pair.up}
    added, keys = composed(model_of({module: (H, 5 * H)}), tensors)
    same(added[module], pair.delta)
    assert where(keys[f"{USO_PROJ}.down.weight"]) == [(module, None, None, None)]


def test_case_03_uso_proj_lora_on_nunchaku():
    pair = factors(H, 5 * H)
    tensors = {f"{USO_PROJ}.down.weight": pair.down, f"{USO_PROJ}.up.weight": pair.up}
    added, _ = composed(model_of(NUNCHAKU), tensors)
    same(torch.cat([added[f"{SINGLE}out_proj"], added[f"{SINGLE}mlp_fc2"]], 1), pair.delta)


@pytest.mark.parametrize("modules", [NUNCHAKU, NUNCHAKU_2], ids=["nunchaku", "nunchaku 2"])
@pytest.mark.parametrize(
    "stem",
    [
        "transformer.single_transformer_blocks.0.proj_out",
        "lora_transformer_single_transformer_blocks_0_proj_out",
        "lora_unet_single_blocks_0_linear2",
        "diffusion_model.single_blocks.0.linear2",
    ],
)
def test_case_04_proj_out_is_split_by_columns(stem, modules):
    """``single_transformer_blocks.0.proj_out`` on Nunchaku's Flux: the down factor's first width goes to attention's
    output, the rest to the MLP's; both take the whole up factor, alpha and rank."""
    pair = factors(H, 5 * H, rank=3, alpha=1.5)
    attention, mlp = list(modules)[:2]
    added, keys = composed(model_of(modules), kohya(stem, pair))
    same(added[attention], pair.delta[:, :H])
    same(added[mlp], pair.delta[:, H:])
    for ending, role in (("lora_down.weight", "down"), ("lora_up.weight", "up"), ("alpha", "alpha")):
        assert keys[f"{stem}.{ending}"]["targets"] == [
            {"module": module, "role": role, "rows": None, "cols": None, "layout": None, "factor_cols": part}
            for module, part in ((attention, [0, H]), (mlp, [H, 5 * H]))
        ]


@pytest.mark.parametrize("module", ["single_blocks.0.linear2", f"{SINGLE}proj_out"])
def test_nunchakus_halves_on_a_model_that_has_them_together(module):
    """The other way round: an adapter trained on Nunchaku's names."""
    attention, mlp = factors(H, H, rank=2, alpha=4), factors(H, 4 * H, rank=5, alpha=1)
    stems = f"transformer.{SINGLE}out_proj", f"transformer.{SINGLE}mlp_fc2"
    added, keys = composed(model_of({module: (H, 5 * H)}), kohya(stems[0], attention) | kohya(stems[1], mlp))
    same(added[module], torch.cat([attention.delta, mlp.delta], 1))
    assert where(keys[f"{stems[0]}.lora_down.weight"]) == [(module, None, [0, H], None)]
    assert where(keys[f"{stems[1]}.lora_down.weight"]) == [(module, None, [H, 5 * H], None)]


@pytest.mark.parametrize("with_bias", [["out_proj", "mlp_fc2"], ["mlp_fc2"]], ids=["both", "the second"])
def test_case_04_the_bias_is_added_once(with_bias):
    """The two products are summed: a bias beside the factors belongs to one of the halves, not to each."""
    biases = {f"single_transformer_blocks__0__{name}__bias": (H,) for name in with_bias}
    stem = "transformer.single_transformer_blocks.0.proj_out"
    tensors = factors(H, 5 * H).keyed(stem) | {f"{stem}.lora_B.bias": torch.ones(H)}
    keys = told(model_of(NUNCHAKU, **biases), tensors)
    assert where(keys[f"{stem}.lora_B.bias"]) == [(SINGLE + with_bias[0], None, None, None)]
    assert [target["module"] for target in keys[f"{stem}.lora_B.weight"]["targets"]] == list(NUNCHAKU)[:2]


def test_nunchakus_halves_share_the_bias_of_the_whole():
    stem = f"transformer.{SINGLE}mlp_fc2"
    module = "single_blocks.0.linear2"
    model = model_of({module: (H, 5 * H)}, single_blocks__0__linear2__bias=(H,))
    keys = told(model, factors(H, 4 * H).keyed(stem) | {f"{stem}.lora_B.bias": torch.ones(H)})
    assert where(keys[f"{stem}.lora_B.bias"]) == [(module, None, None, None)]
    assert where(keys[f"{stem}.lora_A.weight"]) == [(module, None, [H, 5 * H], None)]
