"""A model's step from one composition to the next, around the transaction that carries it out."""

from __future__ import annotations

from collections.abc import Iterable

from . import log
from .adapter import Adapter
from .interrupts import HeldInterrupts
from .model_state import Composition, ModelState
from .pending import Pending
from .report import Report
from .tensor_source import MemoryTensors
from .transaction import Transaction


class Change:
    """The step of a model's state from one composition to the next, around a transaction."""

    def __init__(self, state: ModelState, fresh: Composition, transaction: Transaction) -> None:
        self._state = state
        self._fresh = fresh
        self._transaction = transaction
        self._report: Report | None = None
        self._previous = state.composition
        self._previous_pristine = self._previous.pristine

    def carry_out(self) -> None:
        """All of it; after an error nothing has changed."""
        with HeldInterrupts() as interrupts:
            self._transaction.launch(interrupts)
            self._transaction.finish()
            self._commit(undoable=False)
        self._accept()

    def begin(self) -> Pending:
        """All that the host has to do. The state is the new one unless a GPU finds an overflow."""
        with HeldInterrupts() as interrupts:
            self._transaction.launch(interrupts)
            self._commit(undoable=True)
            self._state.pending = Pending(self._state.lock, self._transaction, self._accept, self._refuse)
        return self._state.pending

    def _commit(self, undoable: bool) -> None:
        try:
            pristine = self._transaction.kept()
            composition = self._fresh if self._fresh.restore != "none" else Composition()
            self._transaction.restore_left(undoable)
        except BaseException:
            self._transaction.roll_back()
            raise
        self._fresh.pristine = pristine
        self._state.composition = composition

    def tell(self, report: Report) -> None:
        """Fills in what the change cost, now or once it is settled."""
        self._report = report
        if self._state.pending is None:
            self._complete(report)

    def _accept(self) -> None:
        self._state.pending = None
        if self._previous is not self._fresh:
            close_all(self._previous.owned)
        if self._report is not None:
            self._complete(self._report)

    def _complete(self, report: Report) -> None:
        composition = self._state.composition
        report.stages = {**report.stages, **self._transaction.seconds()}
        report.restore = _restore_cost(composition)
        report.memory = {
            **self._transaction.memory(),
            "restore": composition.nbytes,
            "retained": sum(_retained(adapter) for adapter, _ in composition.entries),
        }
        self._transaction.forget()
        log.report(report)

    def _refuse(self) -> None:
        self._state.pending = None
        self._state.composition = self._previous
        self._previous.pristine = self._previous_pristine
        if self._previous is not self._fresh:
            close_all(self._fresh.owned)
        self._transaction.forget()


def _restore_cost(composition: Composition) -> dict[str, dict[str, int]]:
    if not composition.pristine:
        return {}
    return {"backup": {"modules": len(composition.pristine), "bytes": composition.nbytes}}


def _retained(adapter: Adapter) -> int:
    return adapter.nbytes if isinstance(adapter.source, MemoryTensors) else 0


def close_all(adapters: Iterable[Adapter]) -> None:
    """Closes them all; closed ones stay closed."""
    for adapter in adapters:
        adapter.close()
