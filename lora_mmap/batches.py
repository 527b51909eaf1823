"""Runs of things that fit a budget together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def batches(items: Iterable[_T], nbytes: Callable[[_T], int], budget: int) -> Iterator[list[_T]]:
    """In their order; what exceeds the budget alone comes alone."""
    batch: list[_T] = []
    total = 0
    for item in items:
        more = nbytes(item)
        if batch and total + more > budget:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += more
    if batch:
        yield batch
