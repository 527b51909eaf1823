"""The list of (source, strength) that users pass, opened and checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import log
from .adapter import Adapter
from .adapter_sources import AdapterSource, identity, open_adapter
from .errors import ArgumentError
from .plan import NEGLIGIBLE

AnySource = AdapterSource | Adapter
Entries = Sequence[tuple[AnySource, float] | tuple[AnySource, float, Any]]


def open_entries(function: str, adapters: Entries, opened: list[Adapter]) -> list[tuple[Adapter, float]]:
    """Opens every distinct source once; ``opened`` receives those that we have to close."""
    if isinstance(adapters, (str, bytes, os.PathLike, Mapping)) or not isinstance(adapters, Iterable):
        raise ArgumentError(
            f"[{function}] adapters is a {type(adapters).__name__}, expected a list of (source, strength)"
        )
    known: dict[object, Adapter] = {}
    entries = []
    for position, entry in enumerate(adapters):
        if not isinstance(entry, (tuple, list)) or not 2 <= len(entry) <= 3:
            raise ArgumentError(f"[{function}] adapters[{position}] is {entry!r:.80}, expected (source, strength)")
        source = entry[0]
        strength = finite_strength(function, entry[1], f"adapters[{position}] strength")
        if abs(strength) < NEGLIGIBLE:
            log.skipped(source, strength)
            continue
        if isinstance(source, Adapter):
            source.require_open(function)
            entries.append((source, strength))
            continue
        if not isinstance(source, (str, os.PathLike, Mapping)):
            raise ArgumentError(
                f"[{function}] adapters[{position}] source is a {type(source).__name__}, expected a path, a dict of "
                "tensors or an Adapter"
            )
        key = identity(source)
        if key not in known:
            known[key] = open_adapter(source)
            opened.append(known[key])
            log.opened(known[key])
        entries.append((known[key], strength))
    return entries


def finite_strength(function: str, value: object, what: str) -> float:
    """``value`` as a float. Raises ArgumentError for what is no finite number."""
    try:
        strength = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(f"[{function}] {what} is {value!r}, expected a number") from None
    if not math.isfinite(strength):
        raise ArgumentError(f"[{function}] {what} is {strength}, expected a finite number")
    return strength
