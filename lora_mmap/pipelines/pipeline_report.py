"""What a call did to a pipeline: the report of each of its modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..outcomes import ABSENT, UNKNOWN
from ..report import Report


class PipelineReport(Mapping[str, Report]):
    """Reports by the name of the component. True when an adapter was applied to some module."""

    def __init__(self, reports: Mapping[str, Report]) -> None:
        self._reports = dict(reports)

    def __getitem__(self, component: str) -> Report:
        return self._reports[component]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def __bool__(self) -> bool:
        return any(self._reports.values())

    def __str__(self) -> str:
        parts = [f"{component}\n{report}" for component, report in self._reports.items()]
        if self.unmatched:
            names = ", ".join(self.unmatched[:3]) + (", ..." if len(self.unmatched) > 3 else "")
            parts.append(f"no place in any component for {len(self.unmatched)} modules: {names}")
        return "\n".join(parts) or "nothing was done"

    def __repr__(self) -> str:
        applied = ", ".join(f"{component}: {report.applied}" for component, report in self._reports.items())
        return f"<PipelineReport {applied or 'empty'}>"

    @property
    def applied(self) -> int:
        """Factor pairs applied, over all adapters and components."""
        return sum(report.applied for report in self._reports.values())

    @property
    def unmatched(self) -> list[str]:
        """Module paths, as the files write them, that have a place in none of the components."""
        housed: set[tuple[int, int]] = set()
        seen: dict[tuple[int, int], str] = {}
        for report in self._reports.values():
            for entry in report.entries:
                for group, outcome in enumerate(entry.outcomes):
                    key = id(entry.adapter), group
                    if outcome.status in (ABSENT, UNKNOWN):
                        seen[key] = entry.adapter.groups[group].stem
                    else:
                        housed.add(key)
        return [stem for key, stem in seen.items() if key not in housed]

    @property
    def bytes_read(self) -> int:
        """From files, headers included."""
        return sum(report.bytes_read for report in self._reports.values())

    @property
    def files_opened(self) -> int:
        return sum(report.files_opened for report in self._reports.values())

    @property
    def headers_parsed(self) -> int:
        return sum(report.headers_parsed for report in self._reports.values())

    @property
    def keys_classified(self) -> int:
        return sum(report.keys_classified for report in self._reports.values())

    @property
    def memory(self) -> dict[str, int]:
        """Anonymous memory in bytes, as in :class:`.Report`: what is held for undoing (``restore``, ``retained``) and
        what was needed for the call, over all components."""
        total: Counter[str] = Counter()
        for report in self._reports.values():
            total.update(report.memory)
        return dict(total)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-serialisable."""
        return {
            "applied": self.applied,
            "unmatched": self.unmatched,
            "bytes_read": self.bytes_read,
            "files_opened": self.files_opened,
            "headers_parsed": self.headers_parsed,
            "keys_classified": self.keys_classified,
            "memory": self.memory,
            "components": {component: report.to_dict() for component, report in self._reports.items()},
        }
