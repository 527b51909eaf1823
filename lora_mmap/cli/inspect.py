"""``lora-mmap inspect``: one adapter as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..families import key_tables
from ..key_outcomes import RECOGNISED
from ..report_card import megabytes

_SHOWN = 8


def show(console: Console, description: dict[str, Any]) -> None:
    """Prints what :meth:`Adapter.describe` found."""
    table = Table(title=Text(description["label"]), show_header=False, title_justify="left")
    table.add_row("format", description["format"])
    table.add_row("dialect", description["dialect"])
    table.add_row("family", _family(description["families"]))
    table.add_row("algorithms", ", ".join(f"{name} x {count}" for name, count in description["algorithms"].items()))
    table.add_row("components", ", ".join(description["components"]) or "not named")
    for fact, value in description["training"].items():
        table.add_row(fact.replace("_", " "), Text(value))
    table.add_row("tensors", f"{description['tensors']} of {', '.join(description['dtypes'])}")
    table.add_row("modules", str(description["modules"]))
    table.add_row("bytes", megabytes(description["bytes"]))
    for scale in description["scales"][:_SHOWN]:
        text = f"alpha / rank {scale['scale']:g} ({scale['alpha']}), {scale['modules']} modules"
        table.add_row(f"rank {scale['rank']}", text)
    if len(description["scales"]) > _SHOWN:
        table.add_row("", f"and {len(description['scales']) - _SHOWN} more ranks or scales")
    table.add_row("keys", ", ".join(f"{count} {outcome}" for outcome, count in description["counts"].items()))
    console.print(table)
    troubled = [(name, key) for name, key in description["keys"].items() if key["outcome"] != RECOGNISED]
    for name, key in troubled[:_SHOWN]:
        console.print(f"{key['outcome']}: {name}: {key['reason']}", markup=False, highlight=False)
    if len(troubled) > _SHOWN:
        console.print(f"and {len(troubled) - _SHOWN} more keys that are not used")


def _family(names: list[str]) -> str:
    if not names:
        return "unknown (own names are matched against the model)"
    families = key_tables().families
    return " or ".join(f"{families[name].title} ({name})" for name in names)
