"""safetensors itself: open a file and list its keys. It parses the header and nothing else; no loader can do less."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open


def keys(path: Path) -> list[str]:
    with safe_open(str(path), framework="pt") as file:
        return list(file.keys())
