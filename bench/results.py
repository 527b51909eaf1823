"""What a run found, as plain data: rows of figures, goals with their verdicts, and who was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .machine import Limits
from .timing import TOTAL, Samples, Spread

OURS = "lora_mmap"


@dataclass
class Row:
    """One stage of one contender in one variant of a case. Seconds; ``cpu`` are process CPU seconds of the total.

    ``floor``: seconds this machine cannot beat. ``times_ours``: this median over that of lora_mmap's total.
    ``growth_nbytes``: most resident memory above the level before.
    """

    variant: str
    contender: str
    stage: str
    seconds: Spread
    cpu: Spread | None = None
    floor: float | None = None
    times_ours: float | None = None
    growth_nbytes: int | None = None

    @property
    def fraction_of_floor(self) -> float | None:
        return None if self.floor is None else self.floor / self.seconds.median

    @property
    def best_fraction_of_floor(self) -> float | None:
        return None if self.floor is None else self.floor / self.seconds.min


@dataclass
class Goal:
    """A promise and the figure that keeps or breaks it."""

    statement: str
    measured: str
    passed: bool


@dataclass
class CaseResult:
    name: str
    description: str
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # what else a reader of the JSON has to know, as plain data
    summary: list[tuple[str, str]] = field(default_factory=list)  # a short table, printed last: what, figure

    def add(
        self, variant: str, samples: Mapping[str, Samples], floors: Mapping[tuple[str, str], float], ours: str = OURS
    ) -> None:
        """A row for every stage of every contender; ``floors`` by (contender, stage)."""
        reference = samples[ours].spread().median if ours in samples else None
        for contender, found in samples.items():
            for stage in found.stages:
                whole = stage == TOTAL
                seconds = found.spread(stage)
                self.rows.append(
                    Row(
                        variant,
                        contender,
                        stage,
                        seconds,
                        cpu=Spread.of(found.cpu) if whole else None,
                        floor=floors.get((contender, stage)),
                        times_ours=seconds.median / reference if whole and reference else None,
                        growth_nbytes=max(found.growth) if whole and found.growth else None,
                    )
                )

    def to_dict(self) -> dict[str, Any]:
        rows = [
            {
                **asdict(row),
                "fraction_of_floor": row.fraction_of_floor,
                "best_fraction_of_floor": row.best_fraction_of_floor,
            }
            for row in self.rows
        ]
        limits = [
            {name: asdict(value) if isinstance(value, Spread) else value for name, value in limit.to_dict().items()}
            for limit in self.limits
            if limit.fma
        ]
        return {
            "name": self.name,
            "description": self.description,
            "limits": limits,
            "rows": rows,
            "goals": [asdict(goal) for goal in self.goals],
            "notes": self.notes,
            "left_out": self.left_out,
            "facts": self.facts,
            "summary": self.summary,
        }


def run_to_dict(
    machine: Mapping[str, object], options: Mapping[str, object], cases: Sequence[CaseResult]
) -> dict[str, Any]:
    """The whole run, JSON-serialisable. ``schema`` changes when a reader of old files would misread new ones."""
    return {
        "schema": 1,
        "machine": dict(machine),
        "options": dict(options),
        "cases": [case.to_dict() for case in cases],
    }
