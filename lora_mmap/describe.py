"""What an adapter's keys tell without a model: the report's dictionary with targets in the file's own naming."""

from __future__ import annotations

from typing import Any

from .adapter import Adapter
from .pairing import Pair, pair_up


def describe(adapter: Adapter) -> dict[str, Any]:
    """Format, dialect, family, components, scales and, per key, what it was recognised as. JSON-serialisable."""
    return {
        "label": adapter.label,
        "format": adapter.source.format,
        "dialect": adapter.dialect,
        "family": adapter.family,
        "components": sorted({component for component in adapter.group_components if component}),
        "tensors": len(adapter),
        "modules": len(adapter.classification),
        "bytes": adapter.nbytes,
        "dtypes": sorted(set(adapter.source.dtypes)),
        "scales": scales(adapter),
        "metadata": dict(adapter.source.metadata or {}),
        "keys": describe_keys(adapter),
    }


def describe_keys(adapter: Adapter) -> dict[str, Any]:
    """Per key its target and outcome: ``recognised``, ``unsupported``, ``ignored`` (with the reason) or ``unknown``."""
    names = adapter.source.names
    keys: dict[str, Any] = {
        names[tensor]: {"outcome": "unknown", "targets": [], "reason": "no known suffix"}
        for tensor in adapter.classification.unknown
    }
    for group, pair in zip(adapter.groups, pair_up(adapter), strict=True):
        outcome, reason = "recognised", ""
        if not isinstance(pair, Pair):
            outcome, reason = ("unsupported" if pair.kind == "unsupported" else "ignored"), pair.reason
        for suffix, tensor in group.members:
            target = {
                "module": group.stem[group.starts[-1][0] :],
                "role": adapter.role(suffix),
                "rows": None,
                "cols": None,
                "layout": None,
            }
            targets = [target] if outcome == "recognised" else []
            keys[names[tensor]] = {"outcome": outcome, "targets": targets, "reason": reason}
    return keys


def scales(adapter: Adapter) -> list[dict[str, Any]]:
    """The distinct (rank, alpha / rank, where alpha came from) of an adapter, with how many modules have each."""
    counts: dict[tuple[int, float, str], int] = {}
    for pair in pair_up(adapter):
        if isinstance(pair, Pair):
            key = (pair.rank, pair.scale, pair.scale_source)
            counts[key] = counts.get(key, 0) + 1
    return [
        {"rank": rank, "scale": scale, "alpha": source, "modules": count}
        for (rank, scale, source), count in sorted(counts.items(), key=lambda item: -item[1])
    ]
