"""Tensors that are no LoRA although they look like it: cases 21 to 25.

Their arithmetic is not here yet: what is asserted is what they are told to be, without a model and on one, and that
nothing is fused in their name.
"""

import pytest
import torch
from file_tensors import factors
from small_models import H, model_of, told, where

import lora_mmap
from lora_mmap.pairing import pair_up

IN = H + 2  # no weight is square unless it says so
Q = "transformer_blocks.0.attn.to_q"


def recognised(tensors, model, algorithm, reason=""):
    """What the tensors' only group is, having checked what is said of every key with and without a model."""
    with lora_mmap.open_adapter(tensors) as adapter:
        described = adapter.describe()
        (found,) = pair_up(adapter)
    keys = told(model, tensors)
    assert described["algorithms"] == {algorithm: 1}
    for key in tensors:
        for verdict in (described["keys"][key], keys[key]):
            assert verdict["outcome"] == "unsupported"
            assert reason in verdict["reason"]
        assert keys[key]["targets"], key
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    lora_mmap.compose(model, [(tensors, 1.0)])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    return found, keys


@pytest.mark.parametrize("ending", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
@pytest.mark.parametrize("columns", [IN, H], ids=["", "square"])
def test_case_21_a_magnitude_vector_norms_the_rows(columns, ending):
    """``lora_magnitude_vector`` [out] of PEFT, with ``.weight`` in older files: the norm of every output row."""
    tensors = factors(H, columns).keyed(Q) | {f"{Q}.{ending}": torch.ones(H)}
    found, keys = recognised(tensors, model_of({Q: (H, columns)}), "dora", "norm per output row")
    assert found.forms == {"weight": (H, columns)}
    assert keys[f"{Q}.{ending}"]["targets"][0]["role"] == "magnitude"


def test_case_21_under_the_adapters_name():
    stem = f"base_model.model.{Q}"
    tensors = {f"{stem}.lora_{x}.default.weight": torch.ones(shape) for x, shape in (("A", (2, IN)), ("B", (H, 2)))}
    tensors[f"{stem}.lora_magnitude_vector.default.weight"] = torch.ones(H)
    recognised(tensors, model_of({Q: (H, IN)}), "dora", "norm per output row")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, IN), "norm per input column"), ((H, 1), "norm per output row"), ((H,), "norm per output row")],
)
def test_case_22_the_shape_of_dora_scale_tells_the_axis(shape, reason):
    """``dora_scale`` [1, 3072] norms the input columns, [out, 1] the output rows."""
    tensors = factors(H, IN, alpha=1).keyed(Q) | {f"{Q}.dora_scale": torch.ones(shape)}
    found, keys = recognised(tensors, model_of({Q: (H, IN)}), "dora", reason)
    assert (found.rank, found.scale) == (2, 0.5)
    assert where(keys[f"{Q}.dora_scale"]) == [(Q, None, None, None)]


@pytest.mark.parametrize(("shape", "reason"), [((1, H), "norm per input column"), ((H, 1), "norm per output row")])
def test_case_22_on_a_square_weight_too(shape, reason):
    tensors = factors(H, H).keyed(Q) | {f"{Q}.dora_scale": torch.ones(shape)}
    recognised(tensors, model_of({Q: (H, H)}), "dora", reason)


@pytest.mark.parametrize(
    ("shape", "reason"), [((1, 4, 1, 1), "norm per input column"), ((H, 1, 1, 1), "norm per output row")]
)
def test_case_22_of_a_convolution(shape, reason):
    stem = "down_blocks.0.resnets.0.conv1"
    tensors = {f"{stem}.lora_down.weight": torch.ones(2, 4, 3, 3), f"{stem}.lora_up.weight": torch.ones(H, 2, 1, 1)}
    tensors[f"{stem}.dora_scale"] = torch.ones(shape)
    recognised(tensors, model_of({stem: (H, 4, 3, 3)}), "dora", reason)


def test_case_22_a_part_of_a_fused_weight():
    """Column norms of a part are not those of the whole weight: which rows they are over is told."""
    module = "double_blocks.0.img_attn.qkv"
    stem = "lora_transformer_transformer_blocks_0_attn_to_k"
    tensors = factors(H, H).keyed(stem) | {f"{stem}.dora_scale": torch.ones(1, H)}
    _, keys = recognised(tensors, model_of({module: (3 * H, H)}), "dora", "norm per input column")
    assert where(keys[f"{stem}.dora_scale"]) == [(module, [H, 2 * H], None, None)]


def test_case_22_a_scale_that_fits_neither_axis_is_refused():
    tensors = factors(H, IN).keyed(Q) | {f"{Q}.dora_scale": torch.ones(1, IN + 1)}
    verdict = told(model_of({Q: (H, IN)}), tensors)[f"{Q}.dora_scale"]
    assert verdict["outcome"] == "unsupported"
    assert f"[1, {IN + 1}], expected [{H}, 1] or [1, {IN}]" in verdict["reason"]


LOKR = {"w1": (2, 2), "w2": (3, 4)}  # of [6, 8], H x IN


@pytest.mark.parametrize("alpha", [9999999827968.0, 1.0])
def test_case_23_two_whole_factors_of_lokr_have_scale_1(alpha):
    """``lokr_w1`` and ``lokr_w2`` with an alpha: LyCORIS writes a dummy there, often huge."""
    tensors = {f"{Q}.lokr_{name}": torch.ones(shape) for name, shape in LOKR.items()}
    tensors[f"{Q}.alpha"] = torch.tensor(alpha)
    found, _ = recognised(tensors, model_of({Q: (H, IN)}), "lokr")
    assert (found.scale, found.forms) == (1.0, {"weight": (H, IN)})


def test_case_23_with_a_factored_half_it_is_alpha_over_rank():
    """``lokr_w2_a`` [3, r] and ``lokr_w2_b`` [r, 4]."""
    shapes = {"w1": (2, 2), "w2_a": (3, 2), "w2_b": (2, 4)}
    tensors = {f"{Q}.lokr_{name}": torch.ones(shape) for name, shape in shapes.items()}
    tensors[f"{Q}.alpha"] = torch.tensor(1.0)
    found, _ = recognised(tensors, model_of({Q: (H, IN)}), "lokr")
    assert (found.rank, found.scale, found.forms) == (2, 0.5, {"weight": (H, IN)})


@pytest.mark.parametrize(("shape", "algorithm"), [((3, 2, 2), "oft"), ((2, 3, 2, 2), "boft")])
@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_case_24_dimensions_tell_oft_from_boft_and_alpha_is_a_constraint(shape, algorithm, alpha):
    """``oft_blocks`` [n, b, b] is OFT, [m, n, b, b] is BOFT; n * b are the weight's rows."""
    tensors = {f"{Q}.oft_blocks": torch.zeros(shape), f"{Q}.alpha": torch.tensor(alpha)}
    found, _ = recognised(tensors, model_of({Q: (H, IN)}), algorithm)
    assert (found.rank, found.scale) == (None, None)
    assert found.forms["weight"][0] == H


@pytest.mark.parametrize(
    ("on_input", "size", "reason"), [(0, H, "rows multiplied"), (1, IN, "columns multiplied")], ids=["out", "in"]
)
def test_case_25_weight_beside_on_input_is_ia3_and_no_base_weight(on_input, size, reason):
    """``lycoris_...proj_in.weight`` with ``lycoris_...proj_in.on_input``."""
    stem = "lycoris_down_blocks_0_attentions_0_proj_in"
    module = "down_blocks.0.attentions.0.proj_in"
    tensors = {f"{stem}.weight": torch.ones(size), f"{stem}.on_input": torch.tensor(on_input)}
    _, keys = recognised(tensors, model_of({module: (H, IN)}), "ia3", reason)
    assert where(keys[f"{stem}.weight"]) == [(module, None, None, None)]
