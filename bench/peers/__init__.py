"""How others do the same work. Each module says what it imitates, or calls the real thing."""

from __future__ import annotations

import importlib.util


def missing(*packages: str) -> str | None:
    """Why a peer cannot run here, or None: the packages among these that are not installed."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"{', '.join(absent)} not installed" if absent else None
