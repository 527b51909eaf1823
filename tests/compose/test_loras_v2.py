"""The four calls of the Nunchaku Qwen-Image loader: same signatures, same habits, truthful results."""

import copy
import inspect
import logging

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write

import lora_mmap

MODULES = ["first", "second"]


def parameters(function):
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]


def test_signatures():
    none = inspect.Parameter.empty
    assert parameters(lora_mmap.compose_loras_v2) == [
        ("model", none),
        ("lora_configs", none),
        ("apply_awq_mod", "auto"),
        ("save_precompiled_lora", False),
        ("cache_dir", None),
    ]
    names = [name for name, _ in parameters(lora_mmap.update_lora_params_v2)]
    assert len(names) == 3
    assert names[0] == "model"
    assert parameters(lora_mmap.update_lora_params_v2)[2] == ("strength", 1.0)
    assert [name for name, _ in parameters(lora_mmap.set_lora_strength_v2)] == ["model", "strength"]
    assert [name for name, _ in parameters(lora_mmap.reset_lora_v2)] == ["model"]


def composed_by(model, entries):
    twin = copy.deepcopy(model)
    lora_mmap.compose(twin, entries)
    return twin


def same(model, other):
    return all(torch.equal(p, other.get_parameter(n)) for n, p in model.named_parameters())


def test_pairs_triples_paths_and_dicts(small, tmp_path):
    one, two = keyed(adapter_for(small, MODULES, seed=1)), keyed(adapter_for(small, MODULES, seed=2))
    path = write(tmp_path / "a.safetensors", one)
    expected = composed_by(small, [(one, 0.5), (two, 0.25)])
    assert lora_mmap.compose_loras_v2(small, [(str(path), 0.5, {"name": "meta"}), (two, 0.25)])
    assert same(small, expected)
    assert lora_mmap.compose_loras_v2(small, [[path, 0.5, None], (two, 0.25, 3)])
    assert same(small, expected)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("nested", [False, True])
def test_pickled_files(small, tmp_path, suffix, nested):
    tensors = keyed(adapter_for(small, MODULES), alpha=2)
    torch.save({"state_dict": tensors} if nested else tensors, tmp_path / f"a{suffix}")
    expected = composed_by(small, [(tensors, 1.0)])
    report = lora_mmap.compose_loras_v2(small, [(tmp_path / f"a{suffix}", 1.0)])
    assert same(small, expected)
    assert report.files_opened == 1
    assert report.bytes_read > 0


def test_update_is_compose_of_one(small):
    one, two = keyed(adapter_for(small, ["first"], seed=1)), keyed(adapter_for(small, ["second"], seed=2))
    expected = composed_by(small, [(two, 0.3)])
    lora_mmap.compose_loras_v2(small, [(one, 1.0)])
    assert lora_mmap.update_lora_params_v2(small, two, 0.3)
    assert same(small, expected)
    assert lora_mmap.update_lora_params_v2(small, two, strength=0.3, apply_awq_mod=True)
    assert same(small, expected)


def test_strength_multiplies_all_and_survives_zero(small, sha256):
    pristine = sha256(small)
    one, two = keyed(adapter_for(small, MODULES, seed=1)), keyed(adapter_for(small, MODULES, seed=2))
    halved = composed_by(small, [(one, 0.4), (two, -0.35)])
    lora_mmap.compose_loras_v2(small, [(one, 0.8), (two, -0.7)])
    composed = sha256(small)
    assert lora_mmap.set_lora_strength_v2(small, 0.5)
    assert same(small, halved)
    assert not lora_mmap.set_lora_strength_v2(small, 0)
    assert sha256(small) == pristine
    assert lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed
    assert lora_mmap.set_lora_strength_v2(small, -1.0)
    lora_mmap.reset_lora_v2(small)
    assert sha256(small) == pristine


def test_strength_zero_is_no_complaint(small, caplog):
    """Somebody who asks for strength 0 gets it; nothing failed to match."""
    lora_mmap.compose_loras_v2(small, [(keyed(adapter_for(small, MODULES)), 1.0)])
    lora_mmap.set_lora_strength_v2(small, 0.0)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_strength_of_nothing(small):
    assert lora_mmap.set_lora_strength_v2(small, 0.5) is None
    lora_mmap.compose_loras_v2(small, [(keyed(adapter_for(small, MODULES)), 1.0)])
    lora_mmap.reset_lora_v2(small)
    assert lora_mmap.set_lora_strength_v2(small, 0.5) is None


def test_reset_tells_whether_there_was_something(small, sha256):
    pristine = sha256(small)
    assert lora_mmap.reset_lora_v2(small) is False
    lora_mmap.compose_loras_v2(small, [(keyed(adapter_for(small, MODULES)), 1.0)])
    assert lora_mmap.reset_lora_v2(small) is True
    assert lora_mmap.reset_lora_v2(small) is False
    assert sha256(small) == pristine


@pytest.mark.parametrize("arguments", [{"save_precompiled_lora": True}, {"cache_dir": "cache"}], ids=str)
def test_precompilation_is_accepted_with_one_line(small, tmp_path, caplog, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    adapter = keyed(adapter_for(small, MODULES))
    with caplog.at_level(logging.INFO, "lora_mmap"):
        assert lora_mmap.compose_loras_v2(small, [(adapter, 1.0)], **arguments)
    told = [r for r in caplog.records if "precompiled" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.INFO]
    assert list(tmp_path.iterdir()) == []
    caplog.clear()
    with caplog.at_level(logging.INFO, "lora_mmap"):
        lora_mmap.compose_loras_v2(small, [(adapter, 1.0)])
    assert not [r for r in caplog.records if "precompiled" in r.getMessage()]


@pytest.mark.parametrize("choice", ["auto", True, False])
def test_awq_choice_is_accepted(small, choice):
    assert lora_mmap.compose_loras_v2(small, [(keyed(adapter_for(small, MODULES)), 1.0)], apply_awq_mod=choice)


def test_nothing_applied_is_false_where_upstream_said_true(small):
    assert not lora_mmap.compose_loras_v2(small, [])
    assert not lora_mmap.compose_loras_v2(
        small, [({"x.lora_A.weight": torch.ones(1, 2), "x.lora_B.weight": torch.ones(2, 1)}, 1.0)]
    )
