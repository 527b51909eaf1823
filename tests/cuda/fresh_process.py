"""Runs Python code in a process of its own, with a driver of its own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PRELUDE = """
import bare_package, ctypes, os, sys
from lora_mmap import _C
from lora_mmap.errors import CudaError
def error_of(call, *arguments):
    try:
        call(*arguments)
    except CudaError as error:
        return str(error)
    return None
"""


def run(code, libcuda, **environment):
    """The lines that the code prints. `libcuda`: a path for LORA_MMAP_LIBCUDA, or None."""
    return run_program(["-c", PRELUDE + code], libcuda, **environment)


def run_program(arguments, libcuda, **environment):
    env = {key: value for key, value in os.environ.items() if key != "LORA_MMAP_LIBCUDA"} | environment
    env["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    if libcuda is not None:
        env["LORA_MMAP_LIBCUDA"] = str(libcuda)
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
