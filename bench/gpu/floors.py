"""What no fusion on a device can beat, and the promises that are held against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..results import Goal
from .ceilings import Ceilings

HBM, FFMA = "in-place bandwidth", "fp32 multiply-adds"


@dataclass(frozen=True)
class Work:
    """All that one composition has to do, whoever does it: elements of the weights, and multiply-adds."""

    elements: int
    itemsize: int
    rank: int

    @staticmethod
    def of(shapes: Iterable[tuple[int, int]], itemsize: int, rank: int) -> Work:
        return Work(sum(rows * cols for rows, cols in shapes), itemsize, rank)

    @property
    def moved_nbytes(self) -> int:
        """Each weight read once and written once."""
        return 2 * self.elements * self.itemsize

    @property
    def flops(self) -> int:
        return 2 * self.elements * self.rank


@dataclass(frozen=True)
class Floor:
    """Seconds by each ceiling; None where it was not measured."""

    hbm: float | None
    ffma: float | None

    @staticmethod
    def of(work: Work, ceilings: Ceilings) -> Floor:
        return Floor(
            work.moved_nbytes / ceilings.hbm if ceilings.hbm else None,
            work.flops / ceilings.ffma if ceilings.ffma else None,
        )

    def seconds(self, numerics: str) -> float | None:
        """The floor of one kind of arithmetic: tensor cores are not held to fp32 multiply-adds."""
        known = [self.hbm, self.ffma if numerics == "ordered" else None]
        return max((seconds for seconds in known if seconds is not None), default=None)


# (numerics, lowest rank, highest rank) -> (ceiling, fraction of it)
_PROMISES = {
    ("fast", 1, 64): (HBM, 0.85),
    ("ordered", 1, 16): (HBM, 0.85),
    ("ordered", 64, 64): (FFMA, 0.80),
}


def kernel_goal(what: str, numerics: str, rank: int, floor: Floor, seconds: float) -> Goal | None:
    """The promise about the kernel's device time at this rank; None where there is none."""
    for (kind, lowest, highest), (ceiling, wanted) in _PROMISES.items():
        if kind != numerics or not lowest <= rank <= highest:
            continue
        statement = f"{what}: kernel at >= {wanted:.0%} of measured {ceiling}"
        least = floor.hbm if ceiling == HBM else floor.ffma
        if least is None:
            return Goal(statement, "failed: that ceiling was not measured", False)
        return Goal(statement, f"{least / seconds:.0%}", least / seconds >= wanted)
    return None


def time_goal(what: str, device_name: str, wanted_on: str, wanted: float, seconds: float) -> Goal | None:
    """A promise in seconds, made for one device and judged on no other."""
    if wanted_on not in device_name:
        return None
    return Goal(f"{what}: <= {wanted * 1e3:g} ms on an {wanted_on}", f"{seconds * 1e3:.2f} ms", seconds <= wanted)
