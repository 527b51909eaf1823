"""What a composition holds: a small staging buffer besides the restore copy, and a truthful account of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lora_mmap

MiB = 1 << 20

# In a process of its own, so that the high-water mark is the composition's. Reading the whole file, which holds
# 64 MiB of factors, would already fail.
MEASURE = """
import sys, torch, lora_mmap
from pathlib import Path
from torch import nn

def status(field):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field + ":"))
    return int(line.split()[1]) * 1024

model = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(64)))
small = nn.Sequential(nn.Linear(8, 8))
lora_mmap.compose(small, [({"0.lora_A.weight": torch.ones(1, 8), "0.lora_B.weight": torch.ones(8, 1)}, 1.0)])
torch.get_num_threads()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
report = lora_mmap.compose(model, [(sys.argv[1], 1.0)], restore=sys.argv[2])
peak = status("VmHWM")
held = sum(report.memory[kind] for kind in ("restore", "transient", "retained"))
print(report.weights, held, peak - before - held, report.memory["staging"])
"""


@pytest.mark.parametrize("restore", ["auto", "backup", "none"])
def test_growth_besides_what_the_report_lists(tmp_path, restore):
    path = tmp_path / "adapter.safetensors"
    tensors = {}
    for layer in range(64):
        tensors[f"{layer}.lora_A.weight"] = torch.randn(128, 1024)
        tensors[f"{layer}.lora_B.weight"] = torch.randn(1024, 128) / 1024
    save_file(tensors, path)
    assert path.stat().st_size > 64 * MiB
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), restore], capture_output=True, text=True, check=True
    )
    weights, held, growth, staging = map(int, run.stdout.split())
    assert weights == 64
    assert growth <= 32 * MiB
    if restore == "backup":
        copies = 64 * 1024 * 1024 * 4
        assert copies <= held <= copies + copies // 256
        assert 0 < staging <= 8 * MiB + 64 * 128
    else:
        assert path.stat().st_size < held < 2 * path.stat().st_size
        assert staging == 0


def _model(folder: Path, mapped: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(256, 64, bias=False), nn.Linear(64, 128, bias=False))
    if mapped:
        save_file(model.state_dict(), folder / "model.safetensors")
        model.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
    return model


@pytest.mark.parametrize("mapped", [False, True])
def test_pages_copied_on_write_are_told_apart(tmp_path, mapped):
    model = _model(tmp_path, mapped)
    pair = {"0.lora_A.weight": torch.ones(2, 256), "0.lora_B.weight": torch.ones(64, 2)}
    report = lora_mmap.compose(model, [(pair, 1.0)])
    assert report.to_dict()["memory"]["file_backed"] == report.file_backed == (64 * 256 * 4 if mapped else 0)


def test_a_report_does_not_keep_the_weights_alive():
    import gc
    import weakref

    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    pair = {"0.lora_A.weight": torch.ones(2, 8), "0.lora_B.weight": torch.ones(8, 2)}
    report = lora_mmap.compose(model, [(pair, 1.0)])
    weight = weakref.ref(model[0].weight)
    lora_mmap.reset(model)
    del model
    gc.collect()
    assert weight() is None
    assert report.to_dict()["modules"]["0"]["outcome"] == "applied"
