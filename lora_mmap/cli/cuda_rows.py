"""What ``lora-mmap doctor`` says of CUDA: the images on board, the driver, each device and what would run there."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import _C
from ..report_card import megabytes, plural


def cuda_rows() -> Iterator[tuple[str, str]]:
    """(label, sentence) pairs. Creates no context and never raises for what the machine lacks."""
    yield "CUDA images", images()
    driver = _C.cuda_driver()
    found = f"up to CUDA {'.'.join(map(str, driver['version']))}, {plural(driver['devices'], 'device')}"
    yield "CUDA driver", found if not driver["why"] else f"{driver['why']}; adapters are fused on the CPU"
    built = torch.version.cuda
    usable = "usable" if torch.cuda.is_available() else "not usable"
    yield "CUDA in torch", f"{built}, {usable}" if built else "none: this torch is a CPU build"
    for ordinal in range(driver["devices"]):
        yield f"cuda:{ordinal}", device(ordinal)


def images() -> str:
    """The kernels that this build carries."""
    found = _C.images()
    if not found["archs"]:
        return "none: this build fuses on the CPU only (LORA_MMAP_CUDA=off, or no compiler was there)"
    archs = " ".join(f"sm_{arch}" for arch in found["archs"])
    ptx = f", PTX of compute_{found['ptx']}" if found["ptx"] else ""
    return f"{archs}{ptx} by {found['compiler']} {found['toolkit']}, {megabytes(found['nbytes'])}"


def device(ordinal: int) -> str:
    """One device and what would run on it."""
    facts = _C.cuda_device(ordinal)
    major, minor = facts["capability"]
    name = f"{facts['name']}, sm_{major}{minor}, {facts['multiprocessors']} multiprocessors, "
    runs = f"would run {facts['image']}" if facts["image"] else facts["why"]
    return f"{name}{megabytes(facts['memory'])}: {runs}"
