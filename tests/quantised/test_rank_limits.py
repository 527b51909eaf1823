"""More ranks than there is room for: what has an exact low rank is never cut down unasked, and the limits are named."""

import logging

import pytest
import torch
from branch_bounds import inputs, outputs, require_sum
from nunchaku_files import write, write_loha, write_lokr
from nunchaku_models import qwen_image
from quantised_state import state

import lora_mmap
from lora_mmap.errors import ArgumentError, ModelError

OUT = "transformer_blocks.0.attn.to_add_out"


@pytest.fixture
def model():
    return qwen_image(blocks=1, width=128)


def one_part(part):
    return part.endswith("to_add_out")


@pytest.mark.parametrize("count", [1, 4])
def test_more_than_the_kernels_take(model, tmp_path, count):
    """1024 ranks, 32 of them the module's own."""
    before = state(model)
    files = [
        write(tmp_path, model, "kohya", ranks=(960 // count,), seed=seed, parts=one_part)[0] for seed in range(count)
    ]
    with pytest.raises(ModelError, match=rf"(?s)'{OUT}' would have .* 32 of its own.*at most 1024.*svd_rank"):
        lora_mmap.compose_loras_v2(model, [(path, 1.0) for path in files] + [(files[0], 0.5)])
    assert state(model) == before


def test_the_limit_itself_is_fine(model, tmp_path):
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write(tmp_path, model, "kohya", ranks=(1024 - 32,), parts=one_part, size=0.02)
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    assert model.get_submodule(OUT).rank == 1024
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)


def test_many_ranks_are_warned_of_with_the_remedy(model, tmp_path, caplog):
    few, many = (write(tmp_path, model, "kohya", ranks=(n,), seed=n, parts=one_part)[0] for n in (224, 225))
    with caplog.at_level(logging.WARNING, logger="lora_mmap"):
        lora_mmap.compose_loras_v2(model, [(few, 1.0)])
        assert not caplog.records
        lora_mmap.compose_loras_v2(model, [(many, 1.0)])
    assert OUT in caplog.text
    assert "svd_rank" in caplog.text


def test_ranks_are_padded_per_adapter(model, tmp_path):
    files = [write(tmp_path, model, "kohya", ranks=(n,), seed=n, parts=one_part)[0] for n in (3, 17)]
    lora_mmap.compose_loras_v2(model, [(path, 1.0) for path in files])
    assert model.get_submodule(OUT).rank == 32 + 16 + 32


def test_a_kronecker_product_of_too_many_ranks_is_cut_down_when_asked(model, tmp_path):
    """A whole second factor: 4 * 32 ranks, all of the matrix."""
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = write_lokr(tmp_path, model, one_part, whole=True)
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)], svd_rank=24)
    module = report.to_dict()["modules"][OUT]
    assert module["rank"] == 32
    require_energy(model, deltas, 24, module["retained_energy"][0])
    assert "of the squared norm is left" in str(report)


def test_a_product_by_elements_is_cut_down_when_asked(model, tmp_path):
    path, deltas = write_loha(tmp_path, model, one_part, rank=6)
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)], svd_rank=8)
    require_energy(model, deltas, 8, report.to_dict()["modules"][OUT]["retained_energy"][0])


def test_plain_pairs_are_cut_down_too(model, tmp_path):
    path, deltas = write(tmp_path, model, "kohya", ranks=(40,), parts=one_part)
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)], svd_rank=16)
    assert report.to_dict()["modules"][OUT]["rank"] == 16
    require_energy(model, deltas, 16, report.to_dict()["modules"][OUT]["retained_energy"][0])


def require_energy(model, deltas, rank, reported):
    """What is left is the best of that rank (Eckart and Young), and the report says how much that is."""
    layer = model.get_submodule(OUT)
    eye = torch.eye(layer.in_features, dtype=torch.float64)
    with_it = layer(eye)
    lora_mmap.set_lora_strength_v2(model, 0.0)
    added = (with_it - layer(eye)).t()
    values = torch.linalg.svdvals(deltas[OUT])
    best = values[:rank].square().sum() / values.square().sum()
    assert reported == pytest.approx(best.item(), rel=1e-4)
    assert best < 0.999
    left = (deltas[OUT] - added).square().sum() / values.square().sum()
    assert left.item() == pytest.approx(1 - best.item(), abs=2e-4)


def test_too_many_exact_ranks_are_unsupported_and_say_how_to_go_on(tmp_path):
    model = qwen_image(blocks=1, width=1024)
    path, _ = write_lokr(tmp_path, model, one_part, whole=True)
    report = lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    assert not report
    reasons = {key["reason"] for key in report.to_dict()["keys"].values() if key["outcome"] == "unsupported"}
    assert any("1024 ranks" in reason and "svd_rank" in reason for reason in reasons)
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)], svd_rank=64)
    assert model.get_submodule(OUT).rank == 32 + 64


@pytest.mark.parametrize("value", [-1, 1.5, "16", None, True])
def test_svd_rank_is_a_count(model, value):
    with pytest.raises(ArgumentError, match="svd_rank"):
        lora_mmap.compose(model, [], svd_rank=value)


@pytest.mark.parametrize("value", [2, "yes", None, 0.5])
def test_apply_awq_mod_is_a_switch(model, value):
    with pytest.raises(ArgumentError, match="apply_awq_mod"):
        lora_mmap.compose_loras_v2(model, [], apply_awq_mod=value)
