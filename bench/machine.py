"""What it ran on: versions, CPU, and the limits of this machine, measured in the run that they are held against."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from lora_mmap import _C

from .timing import Spread

_PACKAGES = ("torch", "diffusers", "peft", "transformers", "safetensors", "numpy")
_PROBE_NBYTES = 256 << 20


@dataclass
class Limits:
    """FMA throughput (FLOP/s) and bandwidths (bytes read plus written per second) of ``threads`` threads; one probe a
    round. A floor is computed from the best value seen, so that a noisy moment never flatters us."""

    threads: int
    fma: list[float] = field(default_factory=list)
    fma_by_isa: dict[str, float] = field(default_factory=dict)  # the best seen, every instruction set that vectorises
    read_write: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)

    def probe(self) -> None:
        isas = [isa for isa in _C.probe_isas() if isa != "scalar"] or ["scalar"]
        found = {isa: _C.probe_fma(self.threads, isa) for isa in isas}
        self.fma.append(max(found.values()))
        self.fma_by_isa = {isa: max(peak, self.fma_by_isa.get(isa, 0.0)) for isa, peak in found.items()}
        self.read_write.append(_C.probe_read_write(self.threads, _PROBE_NBYTES))
        self.copy.append(_C.probe_copy(self.threads, _PROBE_NBYTES))

    @property
    def calm(self) -> bool:
        """Whether the machine gave what it can in most rounds. Where it did not, medians say more about its other
        tenants than about anybody's code."""
        return Spread.of(self.fma).median >= 0.9 * max(self.fma)

    def fuse_floor(self, rows: int, cols: int, rank: int, itemsize: int) -> float:
        """Seconds no fusion of one weight can beat: max(2MNR / FMA, 2MN * itemsize / bandwidth)."""
        cells = rows * cols
        return max(2 * cells * rank / max(self.fma), 2 * cells * itemsize / max(self.read_write))

    def copy_floor(self, nbytes: int) -> float:
        """Seconds no copy of ``nbytes`` into memory that is mapped already can beat."""
        return 2 * nbytes / max(self.copy)

    def to_dict(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "calm": self.calm,
            "fma_flops": Spread.of(self.fma),
            "fma_best_flops_by_isa": self.fma_by_isa,
            "read_write_bytes_per_second": Spread.of(self.read_write),
            "copy_bytes_per_second": Spread.of(self.copy),
        }


def describe(allocator: str) -> dict[str, object]:
    """The machine and the software of this run, as plain data."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "isa": _C.isa(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "allocator": allocator,
        "versions": {"lora_mmap": _lora_mmap_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lora_mmap_version() -> str:
    import lora_mmap

    return lora_mmap.__version__


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_commit() -> str | None:
    """The commit of the checkout, ``+`` behind it when lora_mmap or csrc differ from it."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "lora_mmap", "csrc") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
