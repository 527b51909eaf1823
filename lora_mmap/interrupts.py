"""Ctrl-C while weights are being written: held back, and let through only where nothing is half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class HeldInterrupts:
    """Holds SIGINT back inside the block. :meth:`check` lets a held one through there; the rest arrive at the end.

    Only the main thread can receive one; in other threads, and where the handler is not Python's, this does nothing.
    """

    def __enter__(self) -> HeldInterrupts:
        self._held: tuple[int, FrameType | None] | None = None
        self._previous = signal.getsignal(signal.SIGINT)
        self._active = threading.current_thread() is threading.main_thread() and callable(self._previous)
        if self._active:
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)
            self.check()

    def check(self) -> None:
        """Hands a held interrupt to the handler that was there before; by default that raises KeyboardInterrupt."""
        held, self._held = self._held, None
        if held is not None and callable(self._previous):
            self._previous(*held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held = (number, frame)
