"""The error for results that are not finite."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import FusionOverflowError
from .outcomes import EntryPlan
from .targets.branch_plan import BranchPlan
from .terms import WeightPlan


def require_finite(function: str, entries: Sequence[EntryPlan], overflowed: Sequence[WeightPlan | BranchPlan]) -> None:
    """Raises FusionOverflowError, naming the first of these weights, unless there are none."""
    if not overflowed:
        return
    weight = overflowed[0]
    count = len({id(one) for one in overflowed})
    adapters = ", ".join(
        f"{entries[entry].adapter.label} at strength {entries[entry].strength:g}"
        for entry in sorted({term.entry for term in weight.terms})
    )
    more = f" (and {count - 1} more weights)" if count > 1 else ""
    raise FusionOverflowError(
        f"[{function}] weight '{weight.geometry.path}' ({weight.geometry.dtype}) would not be finite with "
        f"{adapters}{more}; expected finite results, every weight was put back as it was before"
    )
