"""Per key of an adapter: its outcome, where it goes and why, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .adapter import Adapter
from .families.riders import rider
from .outcomes import ABSENT, IGNORED, KEY_OUTCOMES, UNKNOWN, EntryPlan, Landing

# By module path or key.
Nearest = Mapping[str, Sequence[str]]
# Shown in place of APPLIED and ABSENT where there is no model.
RECOGNISED = "recognised"


def key_outcomes(entry: EntryPlan, nearest: Nearest) -> dict[str, dict[str, Any]]:
    """What became of every key of one adapter in a model; ``nearest`` are the model's names like some of its paths."""
    adapter = entry.adapter
    names = adapter.source.names
    result = foreign_keys(adapter)
    for position, group in enumerate(adapter.groups):
        scaled = scaled_group(adapter, position)
        outcome, landings = entry.outcomes[scaled], entry.landings(scaled)
        reason = with_nearest(outcome.reason, nearest.get(group.stem, ()))
        for suffix, tensor in group.members:
            role, parameter = adapter.role(suffix), adapter.tables.suffixes[suffix].parameter
            if parameter in outcome.missing:
                result[names[tensor]] = {"outcome": ABSENT, "targets": [], "reason": outcome.missing[parameter]}
                continue
            result[names[tensor]] = {
                "outcome": KEY_OUTCOMES[outcome.status],
                "targets": [target(landing, role) for landing in _for(landings, parameter)],
                "reason": reason,
            }
    for key, found in result.items():
        if found["outcome"] == UNKNOWN:
            found["reason"] = with_nearest(found["reason"], nearest.get(key, ()))
    return result


def scaled_group(adapter: Adapter, position: int) -> int:
    """The group that these tensors are part of: their own, or, for an alpha that is written without the adapter's name
    that the factors have, the factors'."""
    group = adapter.groups[position]
    if group.infix or group.stem not in adapter.named_groups:
        return position
    is_alpha = all(adapter.role(suffix) == "alpha" for suffix, _ in group.members)
    return adapter.named_groups[group.stem] if is_alpha else position


def with_nearest(reason: str, names: Sequence[str]) -> str:
    """The reason, with the names that may have been meant."""
    return f"{reason}; nearest: {', '.join(names)}" if names else reason


def foreign_keys(adapter: Adapter) -> dict[str, dict[str, Any]]:
    """The keys that end in no known suffix: riders that are no adapter tensors, and what nobody knows."""
    names = adapter.source.names
    result: dict[str, dict[str, Any]] = {}
    for tensor in adapter.classification.unknown:
        why = rider(names[tensor])
        result[names[tensor]] = {
            "outcome": IGNORED if why else UNKNOWN,
            "targets": [],
            "reason": why or "no known suffix",
        }
    return result


def unknown_keys(adapter: Adapter) -> list[str]:
    """The keys that end in no known suffix and are no riders either."""
    return [key for key, found in foreign_keys(adapter).items() if found["outcome"] == UNKNOWN]


def target(landing: Landing, role: str) -> dict[str, Any]:
    """One place that a tensor goes to. ``rows`` and ``cols`` are the module's, ``factor_rows`` and ``factor_cols``
    those of the file's matrix, given where it is not all of them."""
    found = {
        "module": landing.module,
        "role": role,
        "rows": _listed(landing.rows),
        "cols": _listed(landing.cols),
        "layout": landing.layout,
    }
    for name in ("factor_rows", "factor_cols"):
        if getattr(landing, name) is not None:
            found[name] = _listed(getattr(landing, name))
    return found


def counts(keys: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many keys have each outcome."""
    return dict(Counter(found["outcome"] for found in keys.values()).most_common())


def _for(landings: tuple[Landing, ...], parameter: str) -> list[Landing]:
    own = [landing for landing in landings if landing.parameter == parameter]
    return own or list(landings)


def _listed(part: tuple[int, int] | None) -> list[int] | None:
    return None if part is None else list(part)
