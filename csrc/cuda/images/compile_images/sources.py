"""Which files an image is made of, so that a build makes it anew when one of them changes."""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def read_with(source: Path, include: Path) -> list[Path]:
    """``source`` and every quoted include reachable from it, beside the including file or under ``include``.

    Conditions are not looked at, so a file that one compiler skips counts too.
    """
    found = {source: None}
    pending = [source]
    while pending:
        file = pending.pop()
        for name in _INCLUDE.findall(file.read_bytes()):
            for folder in (file.parent, include):
                header = folder / name.decode()
                if header.is_file():
                    if header not in found:
                        found[header] = None
                        pending.append(header)
                    break
    return list(found)


def write_depfile(path: Path, output: Path, files: list[Path]) -> None:
    """In make's syntax, as Ninja and CMake read it."""
    names = [str(file).replace(" ", "\\ ") for file in (output, *files)]
    path.write_text(f"{names[0]}: {' '.join(names[1:])}\n")
