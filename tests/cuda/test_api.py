"""csrc/cuda/driver/api.h against the toolkit's own cuda.h, where there is one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"


def cuda_header():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    return next((folder for folder in folders if (folder / "cuda.h").exists()), None)


def compile_check(*defines):
    compiler, include = shutil.which("c++") or shutil.which("g++"), cuda_header()
    if not compiler or not include:
        pytest.skip("no cuda.h or no compiler")
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{CSRC}", f"-isystem{include}"]
    command = [compiler, *flags, *defines, str(HERE / "api_check.cpp")]
    return subprocess.run(command, capture_output=True, text=True)


def test_values_sizes_and_signatures():
    done = compile_check()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong", ["value", "size", "arity", "pointer"])
def test_the_check_finds_what_is_wrong(wrong):
    assert compile_check(f"-DWRONG_{wrong.upper()}").returncode != 0
