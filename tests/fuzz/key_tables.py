"""The key tables that ship as text for the fuzz targets, in the format of table_text.h: ``key_tables.py FILE``."""

import itertools
import re
import sys
from pathlib import Path

from lora_mmap.families import key_tables

ROLES = {"down": "d", "up": "u", "alpha": "a"}


def examples(pattern: str) -> list[str]:
    """Texts that fit a pattern: every choice and optional part, two indices, one segment."""
    pieces = re.split(r"(\{[^}]*\}|\[[^]]*\])", pattern)
    return ["".join(parts) for parts in itertools.product(*map(_readings, pieces))]


def _readings(piece: str) -> list[str]:
    if piece.startswith("["):
        return ["", *examples(piece[1:-1])]
    if not piece.startswith("{"):
        return [piece]
    _, colon, kind = piece[1:-1].partition(":")
    if not colon:
        return ["0", "12"]
    return ["default"] if kind == "*" else kind.split("|")


def table_text() -> str:
    tables = key_tables()
    lines = [
        ROLES.get(suffix.role, "o") + suffix.pattern + (f"\t{suffix.keep}" if suffix.keep else "")
        for suffix in tables.suffixes
    ]
    lines += ["p" + prefix.pattern for prefix in tables.prefixes]
    paths: dict[str, None] = {}
    for rule in tables.rules:
        ways = (" ".join([*way.paths, *([f"!{way.beside}"] if way.beside else [])]) for way in rule.alternatives)
        lines.append("\t".join(["r" + rule.pattern, *ways]))
        paths.update(dict.fromkeys([rule.pattern, *(path for way in rule.alternatives for path in way.paths)]))
    modules = dict.fromkeys(text for path in paths for text in examples(path))
    return "\n".join(lines + ["m" + module for module in modules])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table_text())
