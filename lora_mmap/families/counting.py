"""Indices that count two levels through: ``{i*3+j+1}`` in a path is three for each ``i``, then ``j`` (below three), and
one. ``csrc/keys/counting.h`` is the same for matching; this is for writing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FORMULA = re.compile(r"(?P<high>\w+)\*(?P<radix>\d+)(?:\+(?P<low>[A-Za-z]\w*))?(?:\+(?P<offset>\d+))?")


@dataclass(frozen=True, slots=True)
class Counting:
    """``high * radix + low + offset``; without ``low`` nothing may be left over."""

    high: str
    radix: int
    low: str
    offset: int

    def split(self, index: int) -> dict[str, str] | None:
        """The counters that an index stands for, or None for one that is none of theirs."""
        high, low = divmod(index - self.offset, self.radix)
        if high < 0 or (low and not self.low):
            return None
        return {self.high: str(high), self.low: str(low)} if self.low else {self.high: str(high)}

    def join(self, counters: Mapping[str, str]) -> str | None:
        """The index that the counters stand for, or None where ``low`` is not below the radix."""
        low = int(counters[self.low]) if self.low else 0
        return str(int(counters[self.high]) * self.radix + low + self.offset) if low < self.radix else None


def counting(body: str) -> Counting | None:
    """What stands between the braces of a path, or None where it is no such formula."""
    found = _FORMULA.fullmatch(body)
    return found and Counting(found["high"], int(found["radix"]), found["low"] or "", int(found["offset"] or 0))
