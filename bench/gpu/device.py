"""The device of a run: whether there is one, and what it is."""

from __future__ import annotations

import subprocess
from typing import Any

import torch

from lora_mmap import _C


def why_not() -> str | None:
    """Why no CUDA device can be measured here; None where one can."""
    if torch.version.hip is not None:
        return "this torch is a ROCm build"
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    if not torch.cuda.is_available():
        return _asked("cuda_driver").get("why") or "torch finds no device that it can use"
    return None


def is_there() -> bool:
    return why_not() is None


def why_no_kernels(device: torch.device) -> str | None:
    """Why our kernels would not run on ``device``; None where they would, or where the core cannot tell."""
    facts = _asked("cuda_device", device.index)
    if "image" not in facts:
        return None if hasattr(_C, "cuda_fuse") else "the native core was built without CUDA"
    return None if facts["image"] is not None else str(facts.get("why"))


def facts(device: torch.device) -> dict[str, Any]:
    """The device and what runs it, JSON-serialisable."""
    known: dict[str, Any] = {
        "name": str(device),
        "torch_cuda": torch.version.cuda,
        "driver": _driver_version(),
        "core": {"images": _asked("images"), "device": _asked("cuda_device", device.index or 0)},
    }
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        known |= {
            "name": found.name,
            "capability": [found.major, found.minor],
            "multiprocessors": found.multi_processor_count,
            "memory_nbytes": found.total_memory,
        }
    return known


def free_nbytes(device: torch.device) -> int | None:
    """Memory that torch could get on ``device``, its own cache included; None on a CPU."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached


def _asked(function: str, *arguments: object) -> dict[str, Any]:
    """What the native core says about itself, or why it does not."""
    ask = getattr(_C, function, None)
    if ask is None:
        return {"missing": f"the native core has no {function}: it was built without CUDA"}
    try:
        return dict(ask(*arguments))
    except Exception as error:
        return {"why": str(error)}


def _driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None
