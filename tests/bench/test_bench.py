"""The harness runs from its command line and writes what it says it writes. No timing is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "plan", "--quick", "--repeats", "2", "--json", str(folder / "run.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "run.json").read_text()), done.stdout, done.stderr


def test_machine_and_options_are_recorded(run: tuple[dict[str, Any], str, str]) -> None:
    found = run[0]
    assert found["schema"] == 1
    assert found["options"]["cases"] == ["plan"]
    assert found["options"]["quick"] is True
    machine = found["machine"]
    assert {"date", "git_commit", "cpu", "cores", "threads", "isa", "allocator", "versions"} <= machine.keys()
    assert machine["versions"]["torch"]


def test_rows_have_every_figure(run: tuple[dict[str, Any], str, str]) -> None:
    (case,) = run[0]["cases"]
    assert case["name"] == "plan"
    contenders = {row["contender"] for row in case["rows"]}
    assert {"lora_mmap", "safetensors header", "python-regex"} <= contenders
    for row in case["rows"]:
        seconds = row["seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert seconds["rounds"] == 2
    total = next(row for row in case["rows"] if row["contender"] == "lora_mmap" and row["stage"] == "total")
    assert total["times_ours"] == 1
    assert {goal["passed"] for goal in case["goals"]} <= {True, False}


def test_table_on_stdout_progress_on_stderr(run: tuple[dict[str, Any], str, str]) -> None:
    _, out, err = run
    assert "| goal | measured | |" in out
    assert "warm-up" in err
    assert "warm-up" not in out


def test_unknown_case_is_refused() -> None:
    command = [sys.executable, "-m", "bench", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "plan" in done.stderr
