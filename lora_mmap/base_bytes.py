"""The bytes of weights in a base checkpoint: compared, read, written into the weights again."""

from __future__ import annotations

from collections.abc import Sequence

from . import _C
from .base_checkpoint import BaseTensor
from .foreign import Foreign
from .geometry import Geometry
from .held import Held
from .lowering.jobs import Place, place_of
from .site import Manner

# A tensor of the checkpoint, where values lie, and the weight that they are of.
BaseValues = tuple[BaseTensor, Place, Geometry]


def equal_to_base(values: Sequence[BaseValues], threads: int) -> list[bool]:
    """Which values are bit for bit those of the checkpoint. Raises ReadError."""
    for base, _, _ in values:
        base.check_unchanged()
    return _C.equals_file([base.values(geometry, place) for base, place, geometry in values], threads) if values else []


def read_base(values: Sequence[BaseValues], threads: int) -> None:
    """Reads the checkpoint's values to where they are wanted. Raises ReadError where it is not what it was."""
    for base, _, _ in values:
        base.check_unchanged()
    if values:
        _C.read_converted([base.values(geometry, place) for base, place, geometry in values], threads)
    for base, _, _ in values:
        base.check_unchanged()


def restore_from_base(held: Sequence[Held], manner: Manner) -> list[Foreign]:
    """Writes the checkpoint's values into weights, each in one piece, and returns tiles that somebody else wrote to.
    Raises ReadError where the checkpoint is not what it was."""
    items = []
    for one in held:
        assert one.base is not None
        one.base.check_unchanged()
        items.append((*one.base.values(one.geometry, place_of(one.geometry)), one.records[0]))
    foreign = _C.restore_from_file(items, manner.threads, manner.force) if items else []
    return [Foreign(held[index].geometry, row, col) for index, row, col in foreign]
