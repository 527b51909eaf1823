"""Random histories of calls on one model, as data, so that others can be put through the same."""

import inspect
import random
from dataclasses import dataclass

import lora_mmap

STRENGTHS = (-1.5, -0.3, 0.0, 1e-6, 0.2, 0.7, 1.0, 3.0)
MULTIPLIERS = (-1.0, 0.0, 0.4, 1.0, 2.0)
HAS_PARTIAL_RESETS = "adapters" in inspect.signature(lora_mmap.reset).parameters
_WEIGHTS = {
    "compose": 5,
    "switch": 4,
    "add": 4,
    "remove": 3,
    "strengths": 3,
    "multiply": 4,
    "take out": 3 if HAS_PARTIAL_RESETS else 0,
    "reset": 2,
    "fail": 1,
}


@dataclass(frozen=True)
class Step:
    """One call; ``entries`` is the argument: (index of an adapter, strength), a multiplier, or an index to take out.
    ``after`` is the composition, with the strengths that are in effect, that has to be in the weights afterwards."""

    kind: str
    argument: object
    after: tuple[tuple[int, float], ...]


class _Walk:
    def __init__(self, seed, adapters):
        self._random = random.Random(seed)
        self._adapters = adapters
        self._entries, self._factor = [], 1.0

    def step(self):
        kind = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if not self._entries and kind in ("remove", "strengths", "take out"):
            kind = "compose"
        return self._take(kind)

    def _take(self, kind):
        argument = None
        if kind == "multiply":
            argument = self._random.choice(MULTIPLIERS)
            self._factor = argument if self._entries else 1.0
        elif kind == "take out":
            argument = self._random.choice(self._entries)[0]
            self._entries = [entry for entry in self._entries if entry[0] != argument]
            self._factor = self._factor if self._entries else 1.0
        elif kind == "fail":
            argument = self._other(kind)
        else:
            argument = self._entries = self._other(kind)
            self._factor = 1.0
        return Step(kind, argument, self._in_effect())

    def _other(self, kind):
        """The list of entries that a step composes, made from the one that is in the weights."""
        now = list(self._in_effect())
        if kind == "reset":
            return []
        if kind == "add":
            return [*now[-4:], self._entry()]
        if kind == "remove":
            now.pop(self._random.randrange(len(now)))
            return now
        if kind == "strengths":
            return [(index, self._random.choice(STRENGTHS)) for index, _ in now]
        return [self._entry() for _ in range(1 if kind == "switch" else self._random.randint(1, 3))]

    def _entry(self):
        return self._random.randrange(self._adapters), self._random.choice(STRENGTHS)

    def _in_effect(self):
        return tuple((index, strength * self._factor) for index, strength in self._entries)


def history(seed, steps, adapters):
    """``steps`` random steps over ``adapters`` adapters; the last one is a reset."""
    walk = _Walk(seed, adapters)
    return [*(walk.step() for _ in range(steps - 1)), walk._take("reset")]
