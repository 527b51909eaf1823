"""A composition that GPUs are still working on, and what has to happen when they are done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from . import log
from .interrupts import HeldInterrupts
from .transaction import Transaction


class Pending:
    """Settled once, by whoever asks first: the report, or the next call that concerns the model. Thread-safe."""

    def __init__(
        self,
        lock: AbstractContextManager[bool],
        transaction: Transaction,
        accept: Callable[[], None],
        refuse: Callable[[], None],
    ) -> None:
        self._lock = lock  # the model's
        self._unsettled: tuple[Transaction, Callable[[], None], Callable[[], None]] | None
        self._unsettled = transaction, accept, refuse
        self._error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """True when :meth:`settle` would not wait for a GPU."""
        unsettled = self._unsettled
        return unsettled is None or unsettled[0].is_done

    def settle(self) -> None:
        """Waits for the GPUs. Raises what went wrong, every time it is asked, after the weights were put back."""
        with self._lock:
            unsettled, self._unsettled = self._unsettled, None
            if unsettled is not None:
                self._settle(*unsettled)
            if self._error is not None:
                raise self._error

    def __del__(self) -> None:
        """Also where nobody asks any more: weights may outlive their model, and are never left half done."""
        if self._unsettled is None or sys.is_finalizing():
            return
        try:
            self.settle()
        except Exception as error:
            log.failed_unasked(error)

    def _settle(self, transaction: Transaction, accept: Callable[[], None], refuse: Callable[[], None]) -> None:
        with HeldInterrupts():
            try:
                transaction.finish()
            except Exception as error:
                self._error = error
                refuse()
            else:
                accept()
