"""The GPU case where there is no GPU: it says why, and what can run on a CPU runs on one."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bench.gpu
from bench.cases import gpu
from bench.gpu import ceilings, device, fuse, undo
from bench.gpu.ceilings import Ceilings
from bench.gpu.findings import Budget, Findings
from bench.gpu.fuse import Ours
from bench.gpu.sdxl_linears import sdxl_linears
from bench.gpu.stack import flux_linears
from bench.markdown import document
from bench.models import Pattern, linears, sdxl_unet, tree_of
from bench.registry import CASES, Settings, of_a_whole_run
from bench.results import OURS, CaseResult

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
needs_no_device = pytest.mark.skipif(device.is_there(), reason="there is a CUDA device")


@needs_no_device
def test_without_a_device_it_says_why(tmp_path):
    command = [sys.executable, "-m", "bench", "gpu", "--json", str(tmp_path / "run.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "run.json").read_text())["cases"]
    assert case["rows"] == case["goals"] == []
    (line,) = case["left_out"]
    assert line.startswith("not measured: no CUDA device (")
    assert f"- left out: {line}" in done.stdout


@needs_no_device
def test_without_a_device_it_is_no_part_of_a_whole_run():
    assert "gpu" in CASES
    assert of_a_whole_run() == [name for name in CASES if name != "gpu"]


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages(bench.gpu.__path__, "bench.gpu.")])
def test_every_module_imports_without_a_device(name):
    importlib.import_module(name)


def test_sdxl_table_is_what_diffusers_builds():
    pytest.importorskip("diffusers")
    found = linears(sdxl_unet(False, device="meta"))
    assert sdxl_linears() == {name: (m.out_features, m.in_features) for name, m in found.items()}


def test_flux_stack_has_twelve_billion_parameters():
    shapes = flux_linears()
    assert len(shapes) == 19 * 14 + 38 * 6
    assert 11.5e9 < sum(rows * cols for rows, cols in shapes.values()) < 12.5e9


@pytest.fixture
def tiny():
    model = tree_of({f"blocks.{i}.proj": (40, 24) for i in range(4)}, CPU, torch.bfloat16)
    return model, Pattern(model)


def subject(tiny, path, rank=4, **more):
    model, pattern = tiny
    fuse_path = gpu.write_diffusers(path / "a.safetensors", linears(model), rank, 1)
    return fuse.Subject("tiny", CPU, model, pattern, fuse_path, "unet.", rank, **more)


WAYS = (Ours("ordered", "backup"), Ours("fast", "none"))


def test_fusing_leaves_rows_verdicts_and_weights_as_they_were(tiny, tmp_path):
    result = CaseResult("gpu", "")
    limits = Ceilings(h2d=1e10, hbm=1e3, ffma=1e30, ffma_by="this test")
    goals = (("CPU", "total", 1e9), ("H200", "total", 1e-9))
    fuse.measure(Findings(result), subject(tiny, tmp_path, seconds_goals=goals), limits, WAYS, 2, Budget(60))
    contenders = {row.contender for row in result.rows}
    assert contenders == {f"{OURS} ordered, backup", f"{OURS} fast, none", fuse.ADDMM}
    assert all(row.seconds.rounds == 2 for row in result.rows)
    # A floor of seconds, and a promise for a device that this is not: met, and not asked.
    assert [goal.passed for goal in result.goals] == [True] * 4, result.goals
    assert not any("H200" in goal.statement for goal in result.goals)
    assert tiny[1].changed(whole=True) == 0


def test_undoing_leaves_ratios_and_weights_as_they_were(tiny, tmp_path):
    result, first = CaseResult("gpu", ""), subject(tiny, tmp_path)
    other = gpu.write_diffusers(tmp_path / "b.safetensors", linears(tiny[0]), 4, 2)
    undo.measure(Findings(result), first, other, 2, Budget(60))
    assert [goal.statement.partition(":")[2] for goal in result.goals] == [
        " kernel with a journal / with hashes <= 1.3",
        " a switch / composing both <= 1.2",
        " reset / composing <= 1",
    ]
    assert all(float(goal.measured) > 0 for goal in result.goals)
    assert "tiny, journal" in dict(result.summary)
    assert tiny[1].changed(whole=True) == 0


def test_who_fails_is_in_both_tables_and_stops_nobody(tiny, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no | such\nkernel")

    monkeypatch.setattr(fuse.torch_fuse, "addmm", fail)
    result = CaseResult("gpu", "")
    fuse.measure(Findings(result), subject(tiny, tmp_path), Ceilings(), WAYS, 1, Budget(60))
    assert {row.contender for row in result.rows} == {f"{OURS} ordered, backup", f"{OURS} fast, none"}
    what = f"tiny, {fuse.ADDMM}"
    assert (what, "failed: RuntimeError: no / such") in result.summary
    (failed,) = [goal for goal in result.goals if goal.statement == what]
    assert not failed.passed
    # The ceilings are missing, and so are the verdicts that need them: not met.
    assert not any(goal.passed for goal in result.goals if "measured" in goal.statement)


def test_a_contender_that_changes_nothing_is_out(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fuse.torch_fuse, "addmm", lambda *_: None)
    result = CaseResult("gpu", "")
    fuse.measure(Findings(result), subject(tiny, tmp_path), Ceilings(), WAYS, 1, Budget(60))
    assert (f"tiny, {fuse.ADDMM}", "failed: AssertionError: 0 of 4 weights changed") in result.summary


def test_all_sections_on_the_cpu(tmp_path, monkeypatch):
    """Small sizes; what needs a device fails, says so, and the rest is there."""
    monkeypatch.setattr(ceilings, "_STREAMED_NBYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "_MATRIX", 64)
    monkeypatch.setattr(gpu.load, "KINDS", (("tiny file", 3, 100),))
    monkeypatch.setattr(gpu.checks, "ALL", gpu.checks.ALL[:1])
    shapes = {f"blocks.{i}.proj": (40, 24) for i in range(2)}
    target = gpu.Target("tiny", torch.bfloat16, shapes, (4, 16), 5, 1)
    monkeypatch.setattr(gpu, "targets", lambda quick: [target])
    result = CaseResult("gpu", "")
    gpu.measure(Findings(result), CPU, Settings(False, 1, False, tmp_path))
    said = dict(result.summary)
    assert said["checks"] == "1 of 1 passed"
    assert "in-place device memory bandwidth" in said
    assert "load tiny file" in said
    assert "tiny, rank 4, ordered, restore=none" in said
    assert "tiny, rank 16, fast, restore=none" in said
    if not device.is_there():
        assert said["pinned host memory to device"].startswith("failed: ")
    json.dumps(result.to_dict())


def test_the_short_table_is_printed_last():
    result = CaseResult("gpu", "", summary=[("device", "one"), ("checks", "2 of 2")])
    machine = {
        "versions": {},
        "load_average": [],
        "date": "",
        "git_commit": None,
        "cpu": "",
        "cores": 1,
        "platform": "",
    }
    machine |= {"threads": 1, "isa": "", "torch_isa": "", "allocator": "", "python": ""}
    assert document(machine, [result]).endswith("| in short | |\n|---|---|\n| device | one |\n| checks | 2 of 2 |\n")
