"""Resident memory at its peak, and the state of glibc's allocator, which decides how often torch page-faults."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1

_SAMPLING_SECONDS = 2e-3


def keep_allocator_warm() -> bool:
    """Makes glibc keep freed memory instead of returning it: temporaries are page-faulted once per process. False where
    there is no glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def release_freed() -> None:
    """Gives freed heap pages back to the system."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def touch_free_memory(nbytes: int) -> None:
    """Writes to ``nbytes`` of fresh memory and gives them back. A virtual machine may return idle memory to its host;
    who touches it first then pays the host's page faults (0.3 GB/s were seen), whichever contender that happens to be.
    """
    with mmap.mmap(-1, nbytes) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, nbytes, mmap.PAGESIZE):
            memory[page] = 1


@contextmanager
def peak_growth() -> Iterator[list[int]]:
    """Yields a list that holds, after the block, the bytes by which resident memory rose at its peak in the block.

    Linux keeps the high-water mark itself (VmHWM, reset through clear_refs): nothing is sampled meanwhile.
    Memory the allocator had kept from before does not count. The list stays empty where the kernel does not offer it.
    """
    growth: list[int] = []
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmRSS")
    except OSError:
        yield growth
        return
    yield growth
    growth.append(max(0, _status("VmHWM") - before))


def resident_nbytes() -> int:
    """Resident memory of this process now."""
    return _status("VmRSS")


def anonymous_nbytes() -> int:
    """Anonymous resident memory of this process now: pages of mapped files do not count."""
    return _status("RssAnon")


@contextmanager
def peak_anonymous() -> Iterator[list[int]]:
    """Yields a list that holds, after the block, the most anonymous memory that was seen in it.

    The kernel keeps no such mark, so a thread looks every 2 ms: not for blocks that are timed.
    """
    seen = [anonymous_nbytes()]
    done = threading.Event()

    def look() -> None:
        while not done.wait(_SAMPLING_SECONDS):
            seen[0] = max(seen[0], anonymous_nbytes())

    thread = threading.Thread(target=look, name="peak anonymous memory", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen[0] = max(seen[0], anonymous_nbytes())


def open_files() -> int:
    """File descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
