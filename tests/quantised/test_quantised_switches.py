"""Quantised models in use: switches, strengths and resets by the hundred, with every byte and pointer where it was."""

import copy
import pickle
import random

import pytest
import torch
from branch_bounds import inputs, outputs, require_sum
from nunchaku_files import write
from nunchaku_models import qwen_image
from quantised_state import pointers, state

import lora_mmap
from lora_mmap.errors import ModelError

LARGEST = 16


@pytest.fixture
def model():
    return qwen_image(blocks=1, width=128)


@pytest.fixture
def files(model, tmp_path):
    """Four adapters in four dialects, the first of the largest ranks."""
    return [
        write(tmp_path, model, dialect, ranks=ranks, seed=seed)
        for seed, (dialect, ranks) in enumerate(
            [("kohya", (LARGEST,)), ("diffusers", (3, 7)), ("peft", (8, 4)), ("comfyui", (16, 5, 1))]
        )
    ]


def test_two_hundred_random_steps_and_every_byte_back(model, files):
    before, given = state(model), inputs(model)
    base, chance = outputs(model, given), random.Random(3)
    composed = []
    for step in range(200):
        kind = chance.choice(["compose", "compose", "strength", "partial", "reset"])
        if kind == "compose":
            chosen = chance.sample(files, chance.randint(1, 4))
            composed = [(path, chance.choice([-1.0, 0.3, 1.0]), deltas) for path, deltas in chosen]
            entries = [(path, strength) for path, strength, _ in composed]
            assert lora_mmap.compose_loras_v2(model, entries, apply_awq_mod=True)
        elif kind == "strength" and composed:
            lora_mmap.set_lora_strength_v2(model, chance.choice([0.0, 0.5, -2.0, 1.0]))
        elif kind == "partial" and composed:
            lora_mmap.reset(model, [composed.pop()[0]])
        elif kind == "reset":
            lora_mmap.reset_lora_v2(model)
            composed = []
        if not composed:
            assert state(model) == before, step
    if composed:
        lora_mmap.set_lora_strength_v2(model, 1.0)
        terms = [(strength, deltas) for _, strength, deltas in composed]
        require_sum(model, base, given, terms, torch.bfloat16)
        lora_mmap.reset_lora_v2(model)
    assert state(model) == before


def test_pointers_stay_while_the_ranks_suffice(model, files):
    assert lora_mmap.compose_loras_v2(model, [(files[0][0], 1.0)], apply_awq_mod=True)
    at_first, parameters = pointers(model), {name: id(value) for name, value in model.named_parameters()}
    for path, _ in files[1:]:
        lora_mmap.compose_loras_v2(model, [(path, 0.5)], apply_awq_mod=True)
        assert pointers(model) == at_first
    for strength in (0.5, 0.0, -1.0, 1.0):
        lora_mmap.set_lora_strength_v2(model, strength)
        assert pointers(model) == at_first
    lora_mmap.reset_lora_v2(model)
    assert {name: id(value) for name, value in model.named_parameters()} == parameters


def test_more_ranks_than_there_are_take_new_memory_and_compute_the_same(model, files):
    given = inputs(model)
    base = outputs(model, given)
    lora_mmap.compose_loras_v2(model, [(files[1][0], 1.0)], apply_awq_mod=True)
    small = pointers(model)
    lora_mmap.compose_loras_v2(model, [(path, 1.0) for path, _ in files], apply_awq_mod=True)
    assert pointers(model) != small
    require_sum(model, base, given, [(1.0, deltas) for _, deltas in files], torch.bfloat16)


def test_what_nothing_is_put_into_any_more_computes_as_before(model, tmp_path):
    given = inputs(model)
    base = outputs(model, given)
    every, _ = write(tmp_path, model, "kohya", seed=1)
    one, deltas = write(tmp_path, model, "diffusers", seed=2, parts=lambda part: part.endswith("to_add_out"))
    lora_mmap.compose_loras_v2(model, [(every, 1.0)], apply_awq_mod=True)
    lora_mmap.compose_loras_v2(model, [(one, 1.0)], apply_awq_mod=True)
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)


def test_a_strength_change_reads_nothing_and_multiplies_from_what_was_composed(model, files):
    given = inputs(model)
    base = outputs(model, given)
    path, deltas = files[0]
    lora_mmap.compose_loras_v2(model, [(path, 0.5)], apply_awq_mod=True)
    for strength in (0.0, 3.0, -1.0, 0.0, 1.0):
        report = lora_mmap.set_lora_strength_v2(model, strength)
        assert (report.bytes_read, report.files_opened, report.keys_classified) == (0, 0, 0)
        require_sum(model, base, given, [(0.5 * strength, deltas)], torch.bfloat16)


@pytest.mark.parametrize("restore", ["auto", "journal", "backup"])
def test_reset_whatever_restore_says(model, files, restore):
    before, at_first = state(model), pointers(model)
    report = lora_mmap.compose(model, [(files[0][0], 1.0)], restore=restore, apply_awq_mod=True)
    tier = report.to_dict()["modules"]["transformer_blocks.0.attn.to_qkv"]["restore"]
    assert tier["tier"] == ("backup" if restore == "backup" else "branch")
    assert lora_mmap.reset(model)
    assert state(model) == before
    if restore == "backup":  # the very tensors
        assert pointers(model) == at_first
        assert tier["bytes"] > 0


def test_none_makes_it_the_models_own(model, files):
    report = lora_mmap.compose(model, [(files[0][0], 1.0)], restore="none", apply_awq_mod=True)
    assert report.to_dict()["modules"]["transformer_blocks.0.attn.to_qkv"]["target"] == "svdquant"
    report = lora_mmap.check(model, files[0][0])
    assert report.to_dict()["modules"]["transformer_blocks.0.attn.to_qkv"]["base_rank"] > 32
    committed, given = state(model), inputs(model)
    base = outputs(model, given)
    assert not lora_mmap.reset(model)
    path, deltas = files[1]
    lora_mmap.compose(model, [(path, 0.5)], apply_awq_mod=True)
    require_sum(model, base, given, [(0.5, deltas)], torch.bfloat16)
    assert lora_mmap.reset(model)
    assert state(model) == committed


def test_copies_and_pickles_compute_the_same_and_are_known(model, files):
    before, given = state(model), inputs(model)
    lora_mmap.compose_loras_v2(model, [(files[0][0], 1.0)], apply_awq_mod=True)
    expected = outputs(model, given)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(value, expected[name]) for name, value in outputs(twin, given).items())
        with pytest.raises(ModelError, match="copy"):
            lora_mmap.compose_loras_v2(twin, [(files[1][0], 1.0)])
        assert lora_mmap.reset(twin, force=True)
        fresh = state(twin)
        assert {name: found[1:] for name, found in fresh[0].items() if name.endswith(("proj_down", "proj_up"))} == {
            name: found[1:] for name, found in before[0].items() if name.endswith(("proj_down", "proj_up"))
        }
        assert fresh[1] == before[1]
    assert lora_mmap.reset(model)
    assert state(model) == before


def test_a_converted_model_is_refused_and_forced(model, files):
    lora_mmap.compose_loras_v2(model, [(files[0][0], 1.0)])
    model.half()
    with pytest.raises(ModelError, match=r"converted|float16"):
        lora_mmap.reset(model)
    assert lora_mmap.reset(model, force=True)
    assert {module.rank for module in model.modules() if hasattr(module, "rank")} == {32}


def test_ranks_that_somebody_took_off_are_refused_and_forgotten_by_force(model, files):
    lora_mmap.compose_loras_v2(model, [(files[0][0], 1.0)])
    layer = model.get_submodule("transformer_blocks.0.attn.to_qkv")
    layer.proj_down.data, layer.proj_up.data = (value[:, :32].clone() for value in (layer.proj_down, layer.proj_up))
    layer.rank = 32
    with pytest.raises(ModelError, match=r"to_qkv.*expected \d+ ranks, 32 of them its own, found 32"):
        lora_mmap.reset(model)
    assert lora_mmap.reset(model, force=True)
    assert {module.rank for module in model.modules() if hasattr(module, "rank")} == {32}
    assert lora_mmap.compose_loras_v2(model, [(files[0][0], 1.0)])
    assert lora_mmap.reset(model)


def test_a_module_under_two_names_is_told_of_under_both(model, files, tmp_path):
    model.again = model.transformer_blocks[0].attn.to_add_out
    path, deltas = write(tmp_path, model, "diffusers", seed=5, parts=lambda part: part.endswith("attn.to_add_out"))
    given = inputs(model)
    base = outputs(model, given)
    own = {f"again.lora_{x}.weight": torch.ones(*form) * 0.1 for x, form in (("A", (2, 128)), ("B", (128, 2)))}
    report = lora_mmap.compose(model, [(path, 1.0), (own, 0.5)])
    modules = report.to_dict()["modules"]
    assert {modules[name]["target"] for name in ("again", "transformer_blocks.0.attn.to_add_out")} == {"svdquant"}
    name = "transformer_blocks.0.attn.to_add_out"
    expected = base[name] + given[name] @ (deltas[name] + 0.5 * 0.02 * torch.ones(128, 128)).t()
    torch.testing.assert_close(model.again(given[name]), expected, rtol=2e-2, atol=2e-2)
    assert lora_mmap.reset(model)


def test_a_module_that_two_models_share(model, files):
    other = torch.nn.Module()
    other.transformer_blocks = model.transformer_blocks
    path = files[0][0]
    assert lora_mmap.compose_loras_v2(model, [(path, 1.0)])
    with pytest.raises(ModelError, match="another model object"):
        lora_mmap.compose_loras_v2(other, [(path, 1.0)])
    lora_mmap.reset_lora_v2(model)
    assert lora_mmap.compose_loras_v2(other, [(path, 1.0)])
    lora_mmap.reset_lora_v2(other)


def test_nunchakus_own_names(model, files):
    before, given = state(model), inputs(model)
    base = outputs(model, given)
    path, deltas = write(files[0][0].parent, model, "kohya", seed=9, parts=lambda part: "mod" not in part)
    assert lora_mmap.update_lora_params(model, path)
    lora_mmap.set_lora_strength(model, 0.25)
    require_sum(model, base, given, [(0.25, deltas)], torch.bfloat16)
    lora_mmap.set_lora_strength(model)
    require_sum(model, base, given, [(1.0, deltas)], torch.bfloat16)
    assert lora_mmap.reset_lora(model)
    assert state(model) == before
