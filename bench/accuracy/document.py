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
_HEADER = "| algorithm | tensors of a module | peer | BF16: ours | peer's | F32: ours | peer's | of the bound | note |"
_PACKAGES = ("peft", "lycoris-lora", "diffusers", "torch")


def table_of(page: str) -> str:
    """What stands between the marks."""
    return page.split(_BEGIN, 1)[1].split(_END, 1)[0]


def with_table(page: str, rows: Sequence[Figures]) -> str:
    """The page with another table between its marks."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    lines = [f"Measured with {versions}.", "", _HEADER, "|" + "---|" * (_HEADER.count("|") - 1), *map(_line, rows)]
    text = "\n".join(lines)
    return page.replace(table_of(page), f"\n{text}\n")


def identity(specimen: Specimen) -> str:
    """The cells that tell a row from the others."""
    return f"| {specimen.algorithm} | {specimen.tensors} | {specimen.peer} |"


def _line(row: Figures) -> str:
    figures = [_cell(errors[dtype]) for dtype in ("BF16", "F32") for errors in (row.ours, row.theirs)]
    return f"{identity(row.specimen)} {' | '.join(figures)} | {row.of_bound:.2f} | {row.specimen.note} |"


def _cell(error: Error) -> str:
    return f"{error.ulps:.3g} ulp, {error.norm:.1e}"
