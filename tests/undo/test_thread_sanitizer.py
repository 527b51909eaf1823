"""The native parts of undo under ThreadSanitizer: threads with weights of their own on one pool, faults in between."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("thread_stress")


def not_randomized():
    """What goes before a command: older sanitizers do not know the addresses of newer kernels. Not all containers let
    a process ask for it."""
    prefix = ["setarch", "--addr-no-randomize"]
    allowed = shutil.which("setarch") and subprocess.run([*prefix, "true"], check=False).returncode == 0
    return prefix if allowed else []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the sanitizer is tried on x86-64 only")
def test_no_data_race(tmp_path):
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    compiler = f"-DCMAKE_CXX_COMPILER={shutil.which('c++')}"  # whatever others left in CXX
    configure = ["cmake", "-S", str(SOURCE), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=None", compiler]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path), "-j2"], check=True, capture_output=True)
    run = subprocess.run(
        [*not_randomized(), str(tmp_path / "thread_stress")],
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=0 exitcode=66"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if "unexpected memory mapping" in run.stderr:
        pytest.skip("the sanitizer cannot place its shadow memory here")
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    assert "0 of 4 weights lost a bit" in run.stdout
    assert "ThreadSanitizer" not in run.stderr
