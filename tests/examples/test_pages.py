"""What docs/ tells people to write about pipelines runs, on modules that stand in for theirs."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from adapter_tensors import factors, write
from torch import nn

import lora_mmap

DOCS = Path(__file__).parents[2] / "docs"
LAYER = "text_model.encoder.layers.0.self_attn.q_proj"
THEIRS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


class Text(nn.Module):
    def __init__(self, width):
        super().__init__()
        attention = nn.ModuleDict({"q_proj": nn.Linear(width, width)})
        layer = nn.ModuleDict({"self_attn": attention})
        self.text_model = nn.ModuleDict({"encoder": nn.ModuleDict({"layers": nn.ModuleList([layer])})})


def adapter(seed):
    tensors = {}
    for stem, width in (("unet.down", 32), (f"text_encoder.{LAYER}", 16), (f"text_encoder_2.{LAYER}", 24)):
        tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = factors(width, width, 4, seed)
    return tensors


@pytest.fixture
def modules():
    torch.manual_seed(0)
    return {"unet": nn.ModuleDict({"down": nn.Linear(32, 32)}), "text_encoder": Text(16), "text_encoder_2": Text(24)}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("style", "detail")):
        write(tmp_path / f"{name}.safetensors", adapter(seed))


@pytest.mark.usefixtures("in_folder")
def test_pipelines(modules, sha256):
    before = {name: sha256(module) for name, module in modules.items()}
    names = {"pipeline": SimpleNamespace(**modules)}
    for block in blocks("pipelines.md"):
        exec(block, names)
    assert names["report"].applied == 3
    assert {name: sha256(module) for name, module in modules.items()} == before


def test_migration_from_onediffx():
    names = {}
    with lora_mmap.installed():
        exec(blocks("migration.md")[0], names)
    assert names["load_and_fuse_lora"] is lora_mmap.load_and_fuse_lora
    assert names["clear_lora_cache"] is lora_mmap.clear_lora_cache


@pytest.mark.usefixtures("in_folder")
def test_migration_from_comfyui(modules):
    encoders = {name: SimpleNamespace(transformer=modules[theirs]) for name, theirs in THEIRS.items()}
    names = {
        "load_and_fuse_lora": lora_mmap.load_and_fuse_lora,
        "model": SimpleNamespace(model=SimpleNamespace(diffusion_model=modules["unet"])),
        "clip": SimpleNamespace(cond_stage_model=SimpleNamespace(**encoders)),
        "path": "style.safetensors",
    }
    exec(blocks("migration.md")[1], names)
    strengths = {name: report.entries[0].strength for name, report in names["report"].items()}
    assert strengths == {"unet": 0.8, "text_encoder": 0.5, "text_encoder_2": 0.5}
    assert names["report"].applied == 3
