"""The run as Markdown: the machine, then per case its limits, goals, figures and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .results import CaseResult, Row
from .timing import TOTAL, Spread

# Below this, one noisy moment decides a median.
_ROUNDS_TO_JUDGE = 3


def document(machine: Mapping[str, Any], cases: Sequence[CaseResult]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    load = ", ".join(f"{value:.2f}" for value in machine["load_average"])
    lines = [
        "# lora_mmap benchmark",
        "",
        f"{machine['date']}, commit {(machine['git_commit'] or 'unknown')[:13]}. {machine['cpu']}, {machine['cores']} "
        f"cores (load average at the start {load}), {machine['platform']}, {machine['threads']} threads, "
        f"instruction set {machine['isa']} (torch: {machine['torch_isa']}), allocator: {machine['allocator']}. "
        f"Python {machine['python']}, {versions}.",
        "",
        "Medians of interleaved rounds, (min .. max) behind them. A floor is what this machine's own measured limits",
        "allow; 'of floor' is floor / median. 'memory' is the most resident memory above the level before.",
    ]
    for case in cases:
        lines += ["", *_case(case)]
    return "\n".join(lines) + "\n"


def _case(case: CaseResult) -> list[str]:
    lines = [f"## {case.name}", "", case.description]
    if case.notes or case.left_out or case.limits:
        lines += [""]
    lines += [f"- {note}" for note in case.notes]
    lines += [f"- left out: {line}" for line in case.left_out]
    lines += [f"- limits, {_limits(limit.to_dict())}" for limit in case.limits if limit.fma]
    fewest = min((row.seconds.rounds for row in case.rows), default=0)
    if case.goals and case.rows and fewest < _ROUNDS_TO_JUDGE:
        lines.append(f"- **as few as {fewest} round(s): the ratios and verdicts below are a smoke test, not figures**")
    if any(limit.fma and not limit.calm for limit in case.limits):
        lines.append("- **the machine was not calm (see the FMA range): do not quote these figures**")
    if case.goals:
        lines += ["", "| goal | measured | |", "|---|---|---|"]
        lines += [
            f"| {goal.statement} | {goal.measured} | {'pass' if goal.passed else 'FAIL'} |" for goal in case.goals
        ]
    if case.rows:
        lines += ["", "| variant | contender | stage | time | CPU time | of floor | x ours | memory |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += _rows(case.rows)
    if case.summary:
        lines += ["", "| in short | |", "|---|---|"]
        lines += [f"| {what} | {figure} |" for what, figure in case.summary]
    return lines


def _rows(rows: Iterable[Row]) -> list[str]:
    return [
        f"| {row.variant} | {row.contender} | {f'**{TOTAL}**' if row.stage == TOTAL else row.stage} | "
        f"{spread(row.seconds)} | "
        f"{duration(row.cpu.median) if row.cpu else ''} | "
        f"{f'{row.fraction_of_floor:.0%}' if row.fraction_of_floor is not None else ''} | "
        f"{f'{row.times_ours:.2f}' if row.times_ours is not None else ''} | "
        f"{f'{row.growth_nbytes / 2**20:.1f} MiB' if row.growth_nbytes is not None else ''} |"
        for row in rows
    ]


def _limits(limit: Mapping[str, Any]) -> str:
    def range_of(value: Spread) -> str:
        return f"{value.median / 1e9:.1f} ({value.min / 1e9:.1f} .. {value.max / 1e9:.1f})"

    by_isa = sorted(limit["fma_best_flops_by_isa"].items(), key=lambda item: -item[1])
    best = ", ".join(f"best with {isa} {peak / 1e9:.1f}" for isa, peak in by_isa)
    return (
        f"{limit['threads']} thread(s): FMA {range_of(limit['fma_flops'])} GFLOP/s ({best}), in-place read + write "
        f"{range_of(limit['read_write_bytes_per_second'])} GB/s, copy {range_of(limit['copy_bytes_per_second'])} GB/s"
    )


def spread(value: Spread) -> str:
    return f"{duration(value.median)} ({duration(value.min)} .. {duration(value.max)})"


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-2 else f"{seconds * 1e3:.2f} ms"
