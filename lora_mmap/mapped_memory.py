"""Which weights lie in mapped files: writing to those copies their pages, which is memory too."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


def file_backed_nbytes(regions: Iterable[tuple[int, int]]) -> int:
    """How many bytes of ``regions`` (first address, one past the last) lie in file mappings of this process.

    0 where /proc does not tell.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            mapped = [_range(line) for line in maps if _is_file(line)]
    except OSError:
        return 0
    begins = [begin for begin, _ in mapped]
    total = 0
    for first, last in regions:
        for begin, end in mapped[max(bisect_right(begins, first) - 1, 0) :]:
            if begin >= last:
                break
            total += max(0, min(end, last) - max(begin, first))
    return total


def _range(line: str) -> tuple[int, int]:
    begin, end = line.split(" ", 1)[0].split("-")
    return int(begin, 16), int(end, 16)


def _is_file(line: str) -> bool:
    """The fifth field is the inode: 0 for anonymous memory."""
    return line.split(None, 5)[4] != "0"
