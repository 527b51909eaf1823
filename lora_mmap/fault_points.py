"""Places where a test can let something fail: every step of a transaction that may fail in earnest passes one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _C

# In the order in which a transaction passes them; the last two are native, once per tile of a weight.
FAULT_POINTS = ("recall", "read", "save", "lower", "fuse", "keep", "restore", "commit", "tile", "encode")
_NATIVE = frozenset({"tile", "encode"})


class _Armed:
    def __init__(self, name: str, countdown: int, error: BaseException) -> None:
        self.name = name
        self.countdown = countdown
        self.error = error


_armed: _Armed | None = None


def reach(name: str) -> None:
    """Raises what a test has armed this place with."""
    if _armed is not None and _armed.name == name:
        _armed.countdown -= 1
        if _armed.countdown == 0:
            raise _armed.error


@contextmanager
def armed(name: str, countdown: int, error: BaseException) -> Iterator[None]:
    """Inside the block the ``countdown``-th arrival at a place raises ``error``; native places raise MemoryError."""
    global _armed
    if name not in FAULT_POINTS:
        raise ValueError(f"no fault point '{name}', expected one of {', '.join(FAULT_POINTS)}")
    if name in _NATIVE:
        _C.arm_fault(name, countdown)
    else:
        _armed = _Armed(name, countdown, error)
    try:
        yield
    finally:
        _armed = None
        if name in _NATIVE:
            _C.arm_fault(name, 0)
