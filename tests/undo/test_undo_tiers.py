"""Which tier a weight gets, what that holds, and what is kept of the factors."""

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from torch import nn

import lora_mmap

NAMES = ["0", "1"]


@pytest.fixture
def model():
    torch.manual_seed(5)
    return nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in NAMES)).to(torch.float16)


def factors(model, folder, scale=1.0):
    tensors = keyed(adapter_for(model, NAMES, 4, seed=2))
    tensors = {name: tensor * (scale if "lora_B" in name else 1.0) for name, tensor in tensors.items()}
    return write(folder / "adapter.safetensors", tensors)


def strength_for(model, path, ratio):
    """The strength at which the delta's norm is ``ratio`` times the weight's."""
    pristine = model[0].weight.detach().float().clone()
    lora_mmap.compose(model, [(path, 1e-3)])
    unit = (model[0].weight.float() - pristine).norm() / pristine.norm() / 1e-3
    lora_mmap.reset(model)
    return ratio / unit.item()


def walk(model):
    """Other strengths, and out again."""
    for strength in (0.0, -1.0, 0.5):
        lora_mmap.set_lora_strength_v2(model, strength)
    assert lora_mmap.reset(model)


@pytest.mark.parametrize(("ratio", "share"), [(1e-3, 0.02), (1e-2, 0.06), (0.1, 0.2)])
def test_a_journal_takes_a_part_of_a_copy(model, tmp_path, sha256, ratio, share):
    before, path = sha256(model), factors(model, tmp_path)
    report = lora_mmap.compose(model, [(path, strength_for(model, path, ratio))])
    copies = sum(parameter.nbytes for parameter in model.parameters())
    assert report.restore.keys() == {"journal"}
    assert 0 < report.restore["journal"]["bytes"] <= share * copies
    walk(model)
    assert sha256(model) == before


def test_a_journal_that_grows_becomes_a_copy(model, tmp_path, sha256):
    """Where the delta is thousands of times the weight nothing but a copy is left."""
    path = factors(model, tmp_path)
    strength = strength_for(model, path, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-3)
    before = sha256(model)
    report = lora_mmap.compose(model, [(path, strength)])
    copies = sum(parameter.nbytes for parameter in model.parameters())
    assert report.restore.keys() == {"backup"}
    assert copies <= report.restore["backup"]["bytes"] <= 1.1 * copies
    walk(model)
    assert sha256(model) == before


def test_whoever_asks_gets_a_copy(model, tmp_path, sha256):
    before = sha256(model)
    report = lora_mmap.compose(model, [(factors(model, tmp_path), 1.0)], restore="backup")
    copies = sum(parameter.nbytes for parameter in model.parameters())
    assert copies <= report.restore["backup"]["bytes"] <= 1.1 * copies
    assert report.memory["retained"] == 0
    assert lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("retain", ["memory", "file"])
def test_factors_are_counted_where_they_are_kept(model, tmp_path, sha256, retain):
    before, path = sha256(model), factors(model, tmp_path)
    report = lora_mmap.compose(model, [(path, 1.0)], retain=retain)
    nbytes = sum(tensor.nbytes for tensor in keyed(adapter_for(model, NAMES, 4, seed=2)).values())
    assert report.restore.keys() == {"journal"}
    assert (report.memory["retained"] >= nbytes) is (retain == "memory")
    assert (report.memory["transient"] >= nbytes) is (retain == "file")
    assert lora_mmap.reset(model)
    assert sha256(model) == before


def test_what_reads_the_weight_or_takes_its_place_is_copied(tmp_path, sha256):
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False).double())
    before = sha256(model)
    dora = {
        "0.lora_A.weight": torch.randn(2, 32),
        "0.lora_B.weight": torch.randn(32, 2),
        "0.lora_magnitude_vector": torch.rand(32) + 1,
    }
    double = {"1.lora_A.weight": torch.randn(2, 32), "1.lora_B.weight": torch.randn(32, 2)}
    report = lora_mmap.compose(model, [(dora, 1.0), (double, 1.0)])
    assert report.restore.keys() == {"backup"}
    assert report.restore["backup"]["modules"] == 2
    lora_mmap.compose(model, [(double, 0.5)])
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_taking_out_some_of_several(model, tmp_path, sha256):
    before = sha256(model)
    paths = [write(tmp_path / f"{seed}.safetensors", keyed(adapter_for(model, NAMES, seed=seed))) for seed in range(3)]
    lora_mmap.compose(model, [(paths[0], 0.5), (paths[2], -1.0)])
    wanted = sha256(model)
    lora_mmap.compose(model, [(path, strength) for path, strength in zip(paths, (0.5, 2.0, -1.0), strict=True)])
    assert lora_mmap.reset(model, [paths[1]])
    assert sha256(model) == wanted
    assert lora_mmap.reset(model, [paths[1]]) is False
    assert lora_mmap.reset(model, paths)
    assert sha256(model) == before
