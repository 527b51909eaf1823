"""Tensors that are no LoRA although they look like it: cases 21 to 25."""

import pytest
import torch
from file_tensors import factors
from small_models import H, model_of, same, told, where

import lora_mmap
from lora_mmap.pairing import pair_up

IN = H + 2  # no weight is square unless it says so
Q = "transformer_blocks.0.attn.to_q"


def recognised(tensors, algorithm, outcome, reason=""):
    """What the tensors' only group is without a model, and what is said of every key."""
    with lora_mmap.open_adapter(tensors) as adapter:
        described = adapter.describe()
        (found,) = pair_up(adapter)
    assert described["algorithms"] == {algorithm: 1}
    for key in tensors:
        assert described["keys"][key]["outcome"] == outcome
        assert reason in described["keys"][key]["reason"]
    return found


def fused(tensors, model, algorithm, expected, reason=""):
    """As above for what is fused: the weight of ``model`` becomes ``expected(weight)`` in float64 and comes back."""
    found = recognised(tensors, algorithm, "recognised", reason)
    (weight,) = model.state_dict().values()
    before = weight.clone()
    keys = lora_mmap.compose(model, [(tensors, 1.0)], strict=True).to_dict()["keys"]
    assert {verdict["outcome"] for verdict in keys.values()} == {"applied"}
    assert all(reason in verdict["reason"] and verdict["targets"] for verdict in keys.values())
    same(weight, expected(before))
    assert lora_mmap.reset(model)
    assert torch.equal(weight, before)
    return found, keys


def refused(tensors, model, algorithm, reason=""):
    """As above for what is not: every key says why, and nothing changes."""
    found = recognised(tensors, algorithm, "unsupported", reason)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keys = lora_mmap.compose(model, [(tensors, 1.0)]).to_dict()["keys"]
    assert {verdict["outcome"] for verdict in keys.values()} == {"unsupported"}
    assert all(reason in verdict["reason"] and verdict["targets"] for verdict in keys.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return found, keys


def by_rows(delta, magnitude):
    """DoRA with a norm for every output row."""

    def decomposed(weight):
        changed = weight + delta.reshape(weight.shape)
        norms = changed.flatten(1).norm(dim=1)
        return changed * (magnitude.double().flatten() / norms).view(-1, *[1] * (weight.dim() - 1))

    return decomposed


def by_inputs(delta, magnitude):
    """DoRA with a norm for every input channel, over all rows and the kernel."""

    def decomposed(weight):
        changed = weight + delta.reshape(weight.shape)
        norms = changed.transpose(0, 1).flatten(1).norm(dim=1)
        return changed * (magnitude.double().flatten() / norms).view(1, -1, *[1] * (weight.dim() - 2))

    return decomposed


@pytest.mark.parametrize("ending", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
@pytest.mark.parametrize("columns", [IN, H], ids=["", "square"])
def test_case_21_a_magnitude_vector_norms_the_rows(columns, ending):
    """``lora_magnitude_vector`` [out] of PEFT, with ``.weight`` in older files: the norm of every output row."""
    pair, magnitude = factors(H, columns), torch.rand(H) + 0.5
    tensors = pair.keyed(Q) | {f"{Q}.{ending}": magnitude}
    model = model_of({Q: (H, columns)})
    found, keys = fused(tensors, model, "dora", by_rows(pair.delta, magnitude), "norm per output row")
    assert found.forms == {"weight": (H, columns)}
    assert keys[f"{Q}.{ending}"]["targets"][0]["role"] == "magnitude"


def test_case_21_under_the_adapters_name():
    stem, pair, magnitude = f"base_model.model.{Q}", factors(H, IN), torch.rand(H) + 0.5
    tensors = pair.keyed(stem, ("lora_A.default.weight", "lora_B.default.weight"))
    tensors[f"{stem}.lora_magnitude_vector.default.weight"] = magnitude
    fused(tensors, model_of({Q: (H, IN)}), "dora", by_rows(pair.delta, magnitude), "norm per output row")


@pytest.mark.parametrize(
    ("shape", "decomposed", "reason"),
    [
        ((1, IN), by_inputs, "norm per input column"),
        ((H, 1), by_rows, "norm per output row"),
        ((H,), by_rows, "norm per output row"),
    ],
)
def test_case_22_the_shape_of_dora_scale_tells_the_axis(shape, decomposed, reason):
    """``dora_scale`` [1, 3072] norms the input columns, [out, 1] the output rows."""
    pair, magnitude = factors(H, IN, alpha=1), torch.rand(shape) + 0.5
    tensors = pair.keyed(Q) | {f"{Q}.dora_scale": magnitude}
    found, keys = fused(tensors, model_of({Q: (H, IN)}), "dora", decomposed(pair.delta, magnitude), reason)
    assert (found.rank, found.scale) == (2, 0.5)
    assert where(keys[f"{Q}.dora_scale"]) == [(Q, None, None, None)]


@pytest.mark.parametrize(
    ("shape", "decomposed", "reason"),
    [((1, H), by_inputs, "norm per input column"), ((H, 1), by_rows, "norm per output row")],
)
def test_case_22_on_a_square_weight_too(shape, decomposed, reason):
    pair, magnitude = factors(H, H), torch.rand(shape) + 0.5
    tensors = pair.keyed(Q) | {f"{Q}.dora_scale": magnitude}
    fused(tensors, model_of({Q: (H, H)}), "dora", decomposed(pair.delta, magnitude), reason)


@pytest.mark.parametrize(
    ("shape", "decomposed", "reason"),
    [((1, 4, 1, 1), by_inputs, "norm per input column"), ((H, 1, 1, 1), by_rows, "norm per output row")],
)
def test_case_22_of_a_convolution(shape, decomposed, reason):
    stem, magnitude = "down_blocks.0.resnets.0.conv1", torch.rand(shape) + 0.5
    down, up = torch.randn(2, 4, 3, 3), torch.randn(H, 2, 1, 1)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.dora_scale": magnitude}
    delta = up.flatten(1).double() @ down.flatten(1).double()
    fused(tensors, model_of({stem: (H, 4, 3, 3)}), "dora", decomposed(delta, magnitude), reason)


@pytest.mark.parametrize(("shape", "decomposed"), [((1, H), by_inputs), ((H, 1), by_rows)])
def test_case_22_a_part_of_a_fused_weight(shape, decomposed):
    """Norms of a part are over its own rows, not over the whole weight's."""
    module = "double_blocks.0.img_attn.qkv"
    stem = "lora_transformer_transformer_blocks_0_attn_to_k"
    pair, magnitude = factors(H, H), torch.rand(shape) + 0.5
    tensors = pair.keyed(stem) | {f"{stem}.dora_scale": magnitude}

    def part(weight):
        rows = weight[H : 2 * H]
        return torch.cat([weight[:H], decomposed(pair.delta, magnitude)(rows), weight[2 * H :]])

    _, keys = fused(tensors, model_of({module: (3 * H, H)}), "dora", part)
    assert where(keys[f"{stem}.dora_scale"]) == [(module, [H, 2 * H], None, None)]


def test_case_22_a_fused_file_on_split_modules():
    """Rows have their norms wherever they lie; a norm over all rows of the file's matrix is no module's own."""
    parts = {f"transformer_blocks.0.attn.to_{x}": (H, H) for x in "qkv"}
    stem, pair = "lora_unet_double_blocks_0_img_attn_qkv", factors(3 * H, H)
    model, magnitude = model_of(parts), torch.rand(3 * H, 1) + 0.5
    before = torch.cat([value.clone() for value in model.state_dict().values()])
    tensors = pair.keyed(stem, ("lora_down.weight", "lora_up.weight"))
    lora_mmap.compose(model, [(tensors | {f"{stem}.dora_scale": magnitude}, 1.0)], strict=True)
    same(torch.cat(list(model.state_dict().values())), by_rows(pair.delta, magnitude)(before))
    assert lora_mmap.reset(model)
    verdict = told(model, tensors | {f"{stem}.dora_scale": torch.rand(1, H)})[f"{stem}.dora_scale"]
    assert verdict["outcome"] == "unsupported"
    assert f"runs over all {3 * H} output features, of which it holds {H}" in verdict["reason"]


def test_case_22_a_scale_that_fits_neither_axis_is_refused():
    tensors = factors(H, IN).keyed(Q) | {f"{Q}.dora_scale": torch.ones(1, IN + 1)}
    verdict = told(model_of({Q: (H, IN)}), tensors)[f"{Q}.dora_scale"]
    assert verdict["outcome"] == "unsupported"
    assert f"[1, {IN + 1}], expected [{H}, 1] or [1, {IN}]" in verdict["reason"]


LOKR = {"w1": (2, 2), "w2": (3, 4)}  # of [6, 8], H x IN


def kron(w1, w2, scale=1.0):
    return lambda weight: weight + scale * torch.kron(w1.double(), w2.double())


@pytest.mark.parametrize("alpha", [9999999827968.0, 1.0])
def test_case_23_two_whole_factors_of_lokr_have_scale_1(alpha):
    """``lokr_w1`` and ``lokr_w2`` with an alpha: LyCORIS writes a dummy there, often huge."""
    w1, w2 = (torch.randn(shape) for shape in LOKR.values())
    tensors = {f"{Q}.lokr_w1": w1, f"{Q}.lokr_w2": w2, f"{Q}.alpha": torch.tensor(alpha)}
    found, _ = fused(tensors, model_of({Q: (H, IN)}), "lokr", kron(w1, w2))
    assert (found.scale, found.forms) == (1.0, {"weight": (H, IN)})


def test_case_23_with_a_factored_half_it_is_alpha_over_rank():
    """``lokr_w2_a`` [3, r] and ``lokr_w2_b`` [r, 4]."""
    w1, a, b = torch.randn(2, 2), torch.randn(3, 2), torch.randn(2, 4)
    tensors = {f"{Q}.lokr_w1": w1, f"{Q}.lokr_w2_a": a, f"{Q}.lokr_w2_b": b, f"{Q}.alpha": torch.tensor(1.0)}
    expected = kron(w1, a.double() @ b.double(), 0.5)
    found, _ = fused(tensors, model_of({Q: (H, IN)}), "lokr", expected)
    assert (found.rank, found.scale, found.forms) == (2, 0.5, {"weight": (H, IN)})


@pytest.mark.parametrize(("shape", "algorithm"), [((3, 2, 2), "oft"), ((2, 3, 2, 2), "boft")])
@pytest.mark.parametrize("alpha", [0.0, 4.0])
def test_case_24_dimensions_tell_oft_from_boft_and_alpha_is_a_constraint(shape, algorithm, alpha):
    """``oft_blocks`` [n, b, b] is OFT, [m, n, b, b] is BOFT; n * b are the weight's rows."""
    tensors = {f"{Q}.oft_blocks": torch.zeros(shape), f"{Q}.alpha": torch.tensor(alpha)}
    found, _ = refused(tensors, model_of({Q: (H, IN)}), algorithm)
    assert (found.rank, found.scale) == (None, None)
    assert found.forms["weight"][0] == H


@pytest.mark.parametrize(
    ("on_input", "size", "reason"), [(0, H, "rows multiplied"), (1, IN, "columns multiplied")], ids=["out", "in"]
)
def test_case_25_weight_beside_on_input_is_ia3_and_no_base_weight(on_input, size, reason):
    """``lycoris_...proj_in.weight`` with ``lycoris_...proj_in.on_input``."""
    stem = "lycoris_down_blocks_0_attentions_0_proj_in"
    module = "down_blocks.0.attentions.0.proj_in"
    values = torch.randn(size)
    tensors = {f"{stem}.weight": values, f"{stem}.on_input": torch.tensor(on_input)}
    expanded = values.double() if on_input else values.double()[:, None]
    _, keys = fused(tensors, model_of({module: (H, IN)}), "ia3", lambda weight: weight + weight * expanded, reason)
    assert where(keys[f"{stem}.weight"]) == [(module, None, None, None)]
