"""The report as a boxed card of plain text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .describe import algorithms, scales
from .key_outcomes import unknown_keys
from .outcomes import ABSENT, APPLIED, IGNORED, SKIPPED, UNKNOWN, UNSUPPORTED, EntryPlan

if TYPE_CHECKING:
    from .report import Report

_WIDTH = 100
_SHOWN = (APPLIED, ABSENT, UNSUPPORTED, UNKNOWN, IGNORED, SKIPPED)


def card(report: Report) -> str:
    """The card that ``print(report)`` shows and the log carries at INFO."""
    lines = [_headline(report)]
    for entry in report.entries:
        lines += _entry(entry)
    lines += _unmatched(report)
    lines += _branches(report)
    if not report.dry_run:
        lines += _costs(report)
    return _boxed("lora_mmap", lines)


def megabytes(nbytes: float) -> str:
    """Bytes as decimal kB, MB or GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes:.0f} bytes"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _headline(report: Report) -> str:
    total = sum(len(entry.outcomes) for entry in report.entries)
    verb = "would be applied" if report.dry_run else "applied"
    if not report:
        return f"nothing {verb}: 0 of {plural(total, 'module')}"
    weights = "" if report.dry_run else f", to {plural(report.weights, 'weight')}"
    return f"{report.applied} of {plural(total, 'module')} {verb}{weights}"


def _entry(entry: EntryPlan) -> list[str]:
    adapter = entry.adapter
    name = Path(adapter.label).name if adapter.path else adapter.label
    counts = ", ".join(f"{count} {status}" for status in _SHOWN if (count := entry.count(status)))
    unknown = len(unknown_keys(adapter))
    lines = [
        f"{name}  x {entry.strength:g}: {counts or 'no modules'}" + (f", {unknown} unknown keys" if unknown else "")
    ]
    lines.append(f"   {adapter.source.format}, {adapter.family or 'no known family'}, {adapter.dialect}")
    if entry.count(SKIPPED) < len(entry.outcomes):
        kinds = scales(adapter)
        shown = "; ".join(f"rank {k['rank']}, alpha/rank {k['scale']:g}, {k['alpha']}" for k in kinds[:2])
        lines.append(f"   {shown}" + (f"; and {len(kinds) - 2} more" if len(kinds) > 2 else ""))
        if (found := algorithms(adapter)) and found.keys() != {"lora"}:
            lines.append("   " + ", ".join(f"{count} modules of {name}" for name, count in found.items()))
    reasons: dict[str, int] = {}
    for outcome in entry.outcomes:
        if outcome.status in (UNSUPPORTED, ABSENT, UNKNOWN, IGNORED, SKIPPED) and outcome.reason:
            text = f"{outcome.status}: {outcome.reason}"
            reasons[text] = reasons.get(text, 0) + 1
    lines += [f"   {count} {reason}" for reason, count in list(reasons.items())[:3]]
    return lines


def _unmatched(report: Report) -> list[str]:
    lines = []
    for stem, names in list(report.nearest.items())[:3]:
        lines.append(f"   no place for '{stem}'" + (f", nearest is '{names[0]}'" if names else ""))
    return lines


def _branches(report: Report) -> list[str]:
    found = report.branches.values()
    if not found:
        return []
    kinds = Counter(branch["target"] for branch in found)
    listed = ", ".join(f"{plural(count, 'module')} by {kind}" for kind, count in kinds.items())
    lines = [f"{listed}: up to {max(branch['rank'] for branch in found)} ranks beside the quantised weights"]
    left = [part for branch in found for part in branch.get("retained_energy", {}).values()]
    if left:
        lines.append(f"   cut down to fewer ranks, {min(left):.1%} to {max(left):.1%} of the squared norm is left")
    return lines


def _costs(report: Report) -> list[str]:
    stages = " | ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in report.stages.items())
    tiers = ", ".join(
        f"{tier}: {cost['modules']} modules, {megabytes(cost['bytes'])}" for tier, cost in report.restore.items()
    )
    return [
        f"read {megabytes(report.bytes_read)}, {plural(report.files_opened, 'file')} opened, "
        f"{plural(report.keys_classified, 'key')} classified",
        stages,
        f"restore {tiers or 'nothing to undo'}; staging {megabytes(report.memory.get('staging', 0))}"
        + (f", arena on the GPU {megabytes(arena)}" if (arena := report.memory.get("arena", 0)) else ""),
    ]


def _boxed(title: str, lines: list[str]) -> str:
    shown = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in lines]
    width = max(len(line) for line in [title + "  ", *shown])
    top = f"╭─ {title} {'─' * (width - len(title) - 1)}╮"
    return "\n".join([top, *(f"│ {line:<{width}} │" for line in shown), f"╰{'─' * (width + 2)}╯"])
