"""``python -m bench.gpu.checks [DEVICE] [--quick]``: the checks alone, as a sanitizer or a debugger wants them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from ...results import CaseResult
from ..findings import Budget, Findings
from . import run
from .check import Setting


def _main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("--")]
    device = torch.device(names[0] if names else "cuda:0")
    result = CaseResult("checks", "")
    with tempfile.TemporaryDirectory(prefix="lora_mmap-checks-") as scratch:
        run(Findings(result), Setting.on(device, Path(scratch), "--quick" in arguments), Budget(float("inf")))
    return 0 if all(goal.passed for goal in result.goals) else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
