"""Floors and promises are arithmetic: the same anywhere."""

import pytest

from bench.gpu.ceilings import Ceilings
from bench.gpu.floors import Floor, Work, kernel_goal, time_goal

WORK = Work.of([(100, 50), (10, 500)], itemsize=2, rank=16)
CEILINGS = Ceilings(hbm=4e4, ffma=1.6e5)


def test_work_counts_every_element_twice():
    assert WORK.elements == 10_000
    assert WORK.moved_nbytes == 40_000
    assert WORK.flops == 320_000


def test_floor_is_the_slower_of_the_two_ceilings():
    floor = Floor.of(WORK, CEILINGS)
    assert (floor.hbm, floor.ffma) == (1.0, 2.0)
    assert floor.seconds("ordered") == 2.0
    assert floor.seconds("fast") == 1.0


def test_floor_of_what_was_not_measured():
    floor = Floor.of(WORK, Ceilings())
    assert floor.seconds("ordered") is None
    assert Floor.of(WORK, Ceilings(hbm=4e4)).seconds("ordered") == 1.0
    goal = kernel_goal("x", "ordered", 16, floor, 1.0)
    assert not goal.passed
    assert goal.measured.startswith("failed: ")


@pytest.mark.parametrize(
    ("numerics", "rank", "seconds", "passed"),
    [
        ("ordered", 16, 1.17, True),
        ("ordered", 16, 1.18, False),
        ("fast", 64, 1.17, True),
        ("fast", 64, 1.18, False),
        ("ordered", 64, 2.5, True),
        ("ordered", 64, 2.51, False),
    ],
)
def test_promises_of_the_kernel(numerics, rank, seconds, passed):
    assert kernel_goal("x", numerics, rank, Floor(1.0, 2.0), seconds).passed is passed


def test_no_promise_between_the_ranks():
    assert kernel_goal("x", "ordered", 32, Floor(1.0, 2.0), 9.0) is None
    assert kernel_goal("x", "fast", 128, Floor(1.0, 2.0), 9.0) is None


def test_promises_in_seconds_are_for_one_device():
    assert time_goal("x", "NVIDIA L4", "H200", 25e-3, 1.0) is None
    assert time_goal("x", "NVIDIA H200", "H200", 25e-3, 24e-3).passed
    assert not time_goal("x", "NVIDIA H200", "H200", 25e-3, 26e-3).passed
