"""What has to be right on a device before any figure counts. A check returns what it saw, or raises what is wrong."""

from __future__ import annotations

from ..findings import Budget, Findings, reason
from . import algorithms, arithmetic, branches, loading, streams, undo
from .check import Check, Setting

ALL: tuple[Check, ...] = (
    *arithmetic.CHECKS,
    *algorithms.CHECKS,
    *undo.CHECKS,
    *branches.CHECKS,
    *loading.CHECKS,
    *streams.CHECKS,
)


def run(findings: Findings, setting: Setting, budget: Budget) -> None:
    """Every check that has a meaning on this device; each is one goal."""
    chosen = [check for check in ALL if setting.device.type == "cuda" or not check.needs_cuda]
    passed = 0
    for check in chosen:
        if not budget.left:
            findings.left_out(f"check: {check.name}", "no time left")
            continue
        try:
            seen = check.run(setting)
        except Exception as error:
            findings.failed(f"check: {check.name}", reason(error))
        else:
            passed += 1
            findings.goal(f"check: {check.name}", seen, True)
    findings.line("checks", f"{passed} of {len(chosen)} passed")
