"""What an adapter's keys tell without a model: the report's dictionary with targets in the file's own naming."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .adapter import Adapter
from .key_outcomes import RECOGNISED, counts, foreign_keys, scaled_group, target
from .outcomes import KEY_OUTCOMES, Landing
from .pairing import Pair, Recognised, pair_up


def describe(adapter: Adapter) -> dict[str, Any]:
    """Format, dialect, family, components, algorithms, scales and, per key, what it is. JSON-serialisable.

    ``families`` are all that fit equally well, ``family`` the first of them; ``training`` is what the metadata say of
    the trainer and the base model.
    """
    keys = describe_keys(adapter)
    return {
        "label": adapter.label,
        "format": adapter.source.format,
        "dialect": adapter.dialect,
        "family": adapter.family,
        "families": adapter.families,
        "components": sorted({component for component in adapter.group_components if component}),
        "algorithms": algorithms(adapter),
        "tensors": len(adapter),
        "modules": len(adapter.classification),
        "bytes": adapter.nbytes,
        "dtypes": sorted(set(adapter.source.dtypes)),
        "scales": scales(adapter),
        "counts": counts(keys),
        "training": dict(adapter.metadata.facts),
        "metadata": dict(adapter.source.metadata or {}),
        "keys": keys,
    }


def describe_keys(adapter: Adapter) -> dict[str, Any]:
    """Per key its target and outcome: ``recognised``, ``unsupported``, ``ignored`` (with the reason) or ``unknown``."""
    names = adapter.source.names
    keys = foreign_keys(adapter)
    pairs = pair_up(adapter)
    for position, group in enumerate(adapter.groups):
        pair = pairs[scaled_group(adapter, position)]
        outcome, reason = RECOGNISED, ""
        if isinstance(pair, Recognised):
            outcome, reason = KEY_OUTCOMES.get(pair.kind, RECOGNISED), pair.reason
        for suffix, tensor in group.members:
            landing = Landing(group.path)
            keys[names[tensor]] = {
                "outcome": outcome,
                "targets": [target(landing, adapter.role(suffix))],
                "reason": reason,
            }
    return keys


def algorithms(adapter: Adapter) -> dict[str, int]:
    """How many modules each algorithm has."""
    own = [pair for i, pair in enumerate(pair_up(adapter)) if scaled_group(adapter, i) == i]
    found = Counter("lora" if isinstance(pair, Pair) else pair.algorithm or pair.kind for pair in own)
    return dict(found.most_common())


def scales(adapter: Adapter) -> list[dict[str, Any]]:
    """The distinct (rank, scale, where alpha came from) of an adapter, with how many modules have each. The scale is
    alpha / rank, or what the algorithm has in its place."""
    counted: Counter[tuple[int, float, str]] = Counter()
    for pair in pair_up(adapter):
        if pair.rank is not None and pair.scale is not None:
            counted[pair.rank, pair.scale, pair.scale_source] += 1
    return [
        {"rank": rank, "scale": scale, "alpha": source, "modules": count}
        for (rank, scale, source), count in counted.most_common()
    ]
