"""What ``lora-mmap doctor`` and ``python -m lora_mmap`` say of CUDA, whatever there is of it."""

import os
import subprocess
import sys

import pytest


def doctor(libcuda, *arguments):
    environment = {**os.environ, "LORA_MMAP_LIBCUDA": str(libcuda), "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "lora_mmap", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [(), ("doctor",)])
def test_a_device_and_what_would_run_there(fake_cuda_folder, arguments):
    told = doctor(fake_cuda_folder / "libcuda.so.1", *arguments)
    assert "up to CUDA 13.0, 2 devices" in told
    assert "cuda:0" in told
    assert "Fake H1, sm_90" in told
    assert "would run sm_90" in told
    assert "none: this torch is a CPU build" in told


@pytest.mark.parametrize(("library", "why"), [("libold_cuda.so.1", "too old"), ("nothing.so", "does not load")])
def test_no_use_of_it(fake_cuda_folder, library, why):
    told = doctor(fake_cuda_folder / library)
    assert why in told
    assert "adapters are fused on the CPU" in told
    assert "cuda:0" not in told
