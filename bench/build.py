"""The native core for a run: built in place where there is none, or where it has no kernels for a GPU to be measured.

Nothing here imports it: a module that was loaded cannot be replaced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LOADS = "from lora_mmap import _C"
_HAS_KERNELS = f"""
import torch
{_LOADS}
raise SystemExit(torch.cuda.is_available() and not _C.images()["archs"])
"""


def build_if_needed(arguments: Sequence[str]) -> None:
    """Builds with ``LORA_MMAP_CUDA`` as it is set, ``auto`` otherwise. A build that fails is said on stderr and leaves
    what was there: the run then says what it cannot measure."""
    if _works(_HAS_KERNELS if "gpu" in arguments else _LOADS):
        return
    print("building the native core in place ...", file=sys.stderr, flush=True)
    environment = {"LORA_MMAP_CUDA": "auto", **os.environ}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the build failed:\n{(done.stdout + done.stderr)[-4000:]}", file=sys.stderr, flush=True)


def _works(probe: str) -> bool:
    """Whether a new process gets through ``probe``."""
    return subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, check=False).returncode == 0
