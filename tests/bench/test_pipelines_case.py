"""The ``pipelines`` case on a tiny UNet, and the peers that it measures. No timing is judged here."""

from pathlib import Path

import pytest
import torch
from tiny_unet import tiny_unet
from torch import nn

from bench.adapters import write_diffusers
from bench.cases import pipelines
from bench.markdown import document
from bench.models import Pattern, linears
from bench.peers.onediffx import OneDiffX
from bench.registry import Settings
from bench.witness import Witness

pytest.importorskip("diffusers")
pytest.importorskip("peft")

MACHINE = {
    "date": "",
    "git_commit": None,
    "cpu": "",
    "cores": 1,
    "load_average": [],
    "platform": "",
    "threads": 1,
    "isa": "",
    "torch_isa": "",
    "allocator": "",
    "python": "",
    "versions": {},
}


def layers(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(24, 40, bias=False) for name in "xy"}).to(dtype).requires_grad_(False)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products in two threads wait for each other."""
    ambient = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(ambient)


def test_every_step_has_a_figure_of_everybody(tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "sdxl_unet", tiny_unet)
    monkeypatch.setattr(pipelines, "_MOST_TOUCHED", 1 << 20)
    result = pipelines.run(Settings(quick=True, repeats=2, warm_allocator=False, scratch=tmp_path))
    contenders = {"lora_mmap", "onediffx-arithmetic", "diffusers+peft"}
    steps = {row.variant for row in result.rows}
    assert {(row.variant, row.contender) for row in result.rows} == {(s, c) for s in steps for c in contenders}
    assert {"load + fuse P", "switch to P Q R S T", "another strength of R", "unfuse", "all of them"} <= steps
    assert all(row.seconds.rounds == 2 for row in result.rows)
    assert all(row.times_ours == 1 for row in result.rows if row.contender == "lora_mmap")
    assert [goal.passed for goal in result.goals] == [True]
    drift = {name: found["drift"] for name, found in result.facts["anonymous memory and drift"].items()}
    assert drift["lora_mmap"] == 0
    assert 0 < drift["onediffx-arithmetic"] < 1
    assert 0 < drift["diffusers+peft"] < 1
    text = document(MACHINE, [result])
    assert "| switch to Q R | diffusers+peft | **total** |" in text
    assert "| lora_mmap: elements that unfuse leaves with other bits | 0.00% |" in text


def test_the_restated_arithmetic_is_that_of_its_adapters(tmp_path: Path):
    model = layers(torch.float32)
    modules = linears(model)
    before = {name: module.weight.clone() for name, module in modules.items()}
    paths = {name: write_diffusers(tmp_path / name, modules, 4, seed) for seed, name in enumerate("AB")}
    witness = Witness(modules, paths)
    peer = OneDiffX(modules)
    peer.load(paths["A"], "A", fuse=True)
    witness.require("fused", {"A": 1.0})
    peer.load(paths["B"], "B", fuse=False)
    witness.require("not fused", {"A": 1.0})
    peer.set_and_fuse({"B": 0.5, "A": -2.0})
    witness.require("switched", {"A": -2.0, "B": 0.5})
    peer.set_and_fuse({"B": 0.25})
    witness.require("switched again", {"B": 0.25})
    peer.unfuse()
    for name, module in modules.items():
        torch.testing.assert_close(module.weight, before[name])
    peer.unfuse()
    peer.forget("A")
    with pytest.raises(KeyError):
        peer.set_and_fuse({"A": 1.0})


def test_a_contender_that_did_nothing_is_found(tmp_path: Path):
    modules = linears(layers(torch.float32))
    paths = {"A": write_diffusers(tmp_path / "A", modules, 4, seed=1)}
    witness = Witness(modules, paths)
    with pytest.raises(AssertionError, match="idle"):
        witness.require("idle", {"A": 1.0})


def test_drift_is_counted_by_element():
    model = layers(torch.bfloat16)
    pattern = Pattern(model)
    assert pattern.drift() == 0
    linears(model)["y"].weight.view(-1)[:24] += 1
    assert pattern.drift() == 24 / (2 * 24 * 40)
