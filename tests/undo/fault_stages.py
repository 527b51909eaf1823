"""Errors that arrive in the middle of a call, at the n-th time that it comes to a stage."""

from contextlib import contextmanager

from lora_mmap.fault_points import FAULT_POINTS, armed

STAGES = FAULT_POINTS


class Injected(RuntimeError):
    """An error that nobody can have foreseen."""


# Native stages can only run out of memory.
NATIVE = ("tile", "encode")


def errors_at(stage):
    return (MemoryError,) if stage in NATIVE else (MemoryError, KeyboardInterrupt, OSError, Injected)


@contextmanager
def failing(stage, arrival, error):
    """Inside, ``error`` is raised when the ``arrival``-th time (from 1) a call comes to ``stage``. A call that ends
    without it came there less often."""
    with armed(stage, arrival, error(f"arrival {arrival} at {stage}")):
        yield
