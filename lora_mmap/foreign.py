"""Weights that somebody else wrote to while adapters were in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .errors import ModelError
from .geometry import Geometry


class Foreign(NamedTuple):
    """A weight, and the first row and column of a tile of it that holds other bytes than were written."""

    geometry: Geometry
    row: int
    col: int


def require_ours(function: str, foreign: Sequence[Foreign]) -> None:
    """Raises ModelError, naming the first of these tiles, unless there are none."""
    if not foreign:
        return
    geometry, row, col = foreign[0]
    where = f"weight '{geometry.path}' ({geometry.dtype} [{geometry.rows}, {geometry.cols}])"
    raise ModelError(
        f"[{function}] {where} holds other bytes than were written, from row {row}, column {col} on: somebody else "
        "wrote to it since. Every weight was left as it is; undo before writing to a model, or reset(model, "
        "force=True) to take the adapters out all the same"
    )
