"""The README's first command, and that its checks can fail."""

import subprocess
import sys

import torch
from rich.console import Console

from lora_mmap.demo.check import excess


def test_demo_passes_its_own_checks():
    run = subprocess.run([sys.executable, "-m", "lora_mmap", "demo"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("identical to before") == 2
    assert "all checks passed" in run.stdout
    assert "DIFFERENT" not in run.stdout


def test_the_float64_check_sees_a_wrong_element():
    base = torch.randn(40, 30).bfloat16()
    up, down = torch.randn(40, 3), torch.randn(3, 30)
    exact = base.double() + 0.5 * up.double() @ down.double()
    good = exact.bfloat16()
    assert excess(good, base, [(up, down, 0.5)]) <= 1
    good[7, 11] += 0.25 * good.abs().max()
    assert excess(good, base, [(up, down, 0.5)]) > 1


def test_a_reset_that_does_not_restore_fails_the_demo(monkeypatch):
    from lora_mmap.demo import story as demo

    monkeypatch.setattr(demo, "reset", lambda model: None)
    small = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False))
    monkeypatch.setattr(demo, "compose", lambda model, entries: _compose(small))
    assert not demo._prove(Console(quiet=True), small, [], [])


def _compose(model):
    import lora_mmap

    return lora_mmap.compose(model, [({"0.lora_A.weight": torch.ones(1, 8), "0.lora_B.weight": torch.ones(8, 1)}, 1.0)])
