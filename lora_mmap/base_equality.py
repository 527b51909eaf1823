"""Which weights are what a base checkpoint says, adapters aside."""

from __future__ import annotations

from collections.abc import Sequence

from .base_bytes import equal_to_base
from .base_checkpoint import BaseCheckpoint, BaseTensor
from .batches import batches
from .held import Move
from .lowering.jobs import place_of
from .lowering.operands import Operands
from .pristine_copies import copy_pristine
from .restore import place_of_copy
from .site import Manner
from .steps import Steps

# Copies that are compared together.
_COPIES_NBYTES = 64 << 20


def find_equal(
    base: BaseCheckpoint, moves: Sequence[Move], steps: Steps, factors: Operands, manner: Manner, in_place: bool
) -> dict[int, BaseTensor]:
    """The tensors that weights of one device equal before they are moved, by address. ``factors`` are those of what the
    weights hold; ``in_place`` where the host can read a pristine weight where it is. Raises ReadError."""
    equal: dict[int, BaseTensor] = {}
    asked: list[tuple[Move, BaseTensor]] = []
    for move in moves:
        tensor = base.find(move.held.names, move.held.geometry)
        if tensor is None:
            continue
        if move.old and move.old.base == tensor:
            equal[move.held.geometry.address] = tensor
        else:
            asked.append((move, tensor))

    def is_copied(move: Move) -> bool:
        return move.old is not None or not in_place

    for part in batches(asked, lambda one: is_copied(one[0]) * one[0].held.geometry.nbytes, _COPIES_NBYTES):
        copied = [move for move, _ in part if is_copied(move)]
        copies = dict(zip(map(id, copied), copy_pristine(copied, steps, factors, manner), strict=True))
        steps.wait_for_copies()
        items = []
        for move, tensor in part:
            copy, geometry = copies.get(id(move)), move.held.geometry
            items.append((tensor, place_of_copy(copy) if copy else place_of(geometry), geometry))
        for (tensor, _, geometry), same in zip(items, equal_to_base(items, manner.threads), strict=True):
            if same:
                equal[geometry.address] = tensor
    return equal
