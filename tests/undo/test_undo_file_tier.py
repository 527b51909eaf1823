"""The checkpoint that a model was loaded from as what brings its weights back."""

import json
import os

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from safetensors.torch import save_file
from torch import nn

import lora_mmap
from lora_mmap.errors import ArgumentError, ModelError, ReadError

NAMES = ["0", "1", "2"]


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def model(request):
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Linear(96, 96, bias=False) for _ in NAMES)).to(request.param)


def base_of(model, folder, change=None):
    tensors = {f"{name}.weight": model.get_submodule(name).weight.detach().clone() for name in NAMES}
    if change:
        tensors[f"{change}.weight"][5, 7] += 1
    save_file(tensors, folder / "model.safetensors")
    return folder


def adapter(model, folder, seed=1):
    return write(folder / f"adapter{seed}.safetensors", keyed(adapter_for(model, NAMES, seed=seed)))


@pytest.mark.parametrize("restore", ["auto", "file"])
def test_weights_that_equal_the_file_keep_hashes_only(model, tmp_path, sha256, restore):
    before, base = sha256(model), base_of(model, tmp_path)
    report = lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], restore=restore, base=base)
    assert set(report.restore) == {"file"}
    assert report.restore["file"]["modules"] == 3
    assert 0 < report.memory["restore"] < sum(p.nbytes for p in model.parameters()) / 20
    fused = sha256(model)
    assert lora_mmap.compose(model, [(adapter(model, tmp_path, 2), -0.5)], base=base).restore.keys() == {"file"}
    lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], restore="journal")
    assert sha256(model) == fused
    assert lora_mmap.compose(model, [(adapter(model, tmp_path, 2), 1.0)], base=base).restore.keys() == {"file"}
    assert lora_mmap.reset(model)
    assert sha256(model) == before


def test_a_weight_that_differs_in_one_element_gets_a_journal(model, tmp_path, sha256):
    before, base = sha256(model), base_of(model, tmp_path, change="1")
    report = lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], restore="file", base=base)
    tiers = {name: module["restore"]["tier"] for name, module in report.to_dict()["modules"].items()}
    assert tiers == {"0": "file", "1": "journal", "2": "file"}
    lora_mmap.set_lora_strength_v2(model, 0.0)
    assert sha256(model) == before
    lora_mmap.set_lora_strength_v2(model, -1.0)
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_a_converted_checkpoint_serves(tmp_path, sha256):
    """float32 in the file, bfloat16 in the model: the conversion is repeated."""
    torch.manual_seed(4)
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in NAMES))
    base = base_of(model, tmp_path)
    model = model.to(torch.bfloat16)
    before = sha256(model)
    assert lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], base=base).restore.keys() == {"file"}
    assert sha256(model) != before
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_shards_and_a_prefix(model, tmp_path, sha256):
    before, index = sha256(model), {}
    for name in NAMES:
        key, file = f"model.diffusion_model.{name}.weight", f"model-0000{name}-of-00003.safetensors"
        save_file({key: model.get_submodule(name).weight.detach().clone()}, tmp_path / file)
        index[key] = file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    report = lora_mmap.compose(model, [(keyed(adapter_for(model, NAMES)), 1.0)], base=tmp_path)
    assert report.restore.keys() == {"file"}
    lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("damage", ["truncated", "rewritten", "other time"])
def test_a_checkpoint_that_is_no_longer_what_it_was(model, tmp_path, sha256, damage):
    base, path = base_of(model, tmp_path), tmp_path / "model.safetensors"
    lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], base=base)
    fused, whole = sha256(model), path.read_bytes()
    if damage == "truncated":
        os.truncate(path, 300)
    elif damage == "rewritten":
        path.write_bytes(whole[:-8] + bytes(8))
        os.utime(path, ns=(1, 1))
    else:
        os.utime(path, ns=(1, 1))
    for change in (lora_mmap.reset, lambda model: lora_mmap.set_lora_strength_v2(model, 0.5)):
        with pytest.raises(ReadError, match=r"model\.safetensors"):
            change(model)
        assert sha256(model) == fused


def test_a_file_tier_without_a_file(model, tmp_path):
    with pytest.raises(ArgumentError, match="base is None"):
        lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], restore="file")
    with pytest.raises(FileNotFoundError):
        lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], base=tmp_path / "nowhere")


def test_somebody_else_wrote_to_it(model, tmp_path, sha256):
    before, base = sha256(model), base_of(model, tmp_path)
    lora_mmap.compose(model, [(adapter(model, tmp_path), 1.0)], base=base)
    model[2].weight.data[95, 95] += 1
    mixed = sha256(model)
    with pytest.raises(ModelError, match=r"'2\.weight'.*somebody else"):
        lora_mmap.reset(model)
    assert sha256(model) == mixed
    assert lora_mmap.reset(model, force=True)
    assert sha256(model) == before


@pytest.mark.parametrize("gone", [False, True])
def test_factors_in_files_undo_nothing_that_a_checkpoint_has(model, tmp_path, sha256, gone):
    """With retain="file" a reset needs the adapter for taking back what fails; without it, it looks first."""
    before, base, path = sha256(model), base_of(model, tmp_path), adapter(model, tmp_path)
    lora_mmap.compose(model, [(path, 1.0)], base=base, retain="file")
    if gone:
        os.truncate(path, 10)
    model[2].weight.data[0, 0] += 1
    mixed = sha256(model)
    with pytest.raises(ModelError, match="somebody else"):
        lora_mmap.reset(model)
    assert sha256(model) == mixed
    assert lora_mmap.reset(model, force=True)
    assert sha256(model) == before
