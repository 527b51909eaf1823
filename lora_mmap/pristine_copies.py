"""Copies of the pristine bytes of weights that adapters may be in."""

from __future__ import annotations

from collections.abc import Sequence

from .base_bytes import read_base
from .foreign import require_ours
from .held import Move
from .lowering.operands import Operands
from .restore import Saved, place_of_copy, save
from .site import Manner
from .steps import Steps


def copy_pristine(moves: Sequence[Move], steps: Steps, factors: Operands, manner: Manner) -> list[Saved]:
    """The bytes in memory, for each move: what there is already, or a new block for all others. ``factors`` are those
    of what the weights of one device hold."""
    known = {id(move): move.old.backup for move in moves if move.old and move.old.backup}
    wanted = [move for move in moves if id(move) not in known]
    saved = save([move.held.geometry for move in wanted], manner.threads)
    changed = [(move.old, place_of_copy(one)) for move, one in zip(wanted, saved, strict=True) if move.old]
    from_base = [(old.base, place, old.geometry) for old, place in changed if old.base]
    if from_base:
        steps.wait_for_copies()  # to the memory that is written to now
    read_base(from_base, manner.threads)
    journaled = [(old, place) for old, place in changed if old.base is None]
    outcome = steps.extract([old for old, _ in journaled], [to for _, to in journaled], factors)
    require_ours(manner.function, outcome.foreign)
    found = iter(saved)
    return [known.get(id(move)) or next(found) for move in moves]
