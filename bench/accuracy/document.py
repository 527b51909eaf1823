"""The table in docs/algorithms.md; what is written around it stays."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from .error import Error
from .figures import Figures
from .specimens import Specimen

PATH = Path(__file__).resolve().parents[2] / "docs" / "algorithms.md"
_BEGIN, _END = "<!-- begin: python -m bench.accuracy -->", "<!-- end -->"
_HEADER = "| algorithm | tensors of a module | peer | BF16: ours | peer's | F32: ours | peer's | note |"
_PACKAGES = ("peft", "lycoris-lora", "diffusers", "torch")


def table_of(page: str) -> str:
    """What stands between the marks."""
    return page.split(_BEGIN, 1)[1].split(_END, 1)[0]


def with_table(page: str, rows: Sequence[Figures]) -> str:
    """The page with another table between its marks."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    lines = [f"Measured with {versions}.", "", _HEADER, "|" + "---|" * (_HEADER.count("|") - 1), *map(_line, rows)]
    text = "\n".join(lines)
    before, after = page.split(_BEGIN, 1)[0], page.split(_END, 1)[1]
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"


def identity(specimen: Specimen) -> str:
    """The cells that tell a row from the others."""
    return f"| {specimen.algorithm} | {specimen.tensors} | {specimen.peer} |"


def _line(row: Figures) -> str:
    figures = [_ulps(errors["BF16"]) for errors in (row.ours, row.theirs)]
    figures += [_share(errors["F32"]) for errors in (row.ours, row.theirs)]
    return f"{identity(row.specimen)} {' | '.join(figures)} | {row.specimen.note} |"


def _ulps(error: Error) -> str:
    return f"{error.ulps:.{0 if error.ulps >= 10 else 2}f} ulp, {error.norm:.1e}"


def _share(error: Error) -> str:
    return f"{error.of_bound:.2f} of the bound, {error.norm:.1e}"
