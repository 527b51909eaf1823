"""A model's step from one composition to the next, around the transaction that carries it out."""

from __future__ import annotations

import weakref

from torch import nn

from . import composed_mark, fault_points, log
from .held import cost, cost_by_module
from .interrupts import HeldInterrupts
from .leases import give_back
from .model_state import Composition, ModelState
from .pending import Pending
from .report import Report
from .transaction import Transaction


class Change:
    """The step of a model's state from one composition to the next, around a transaction."""

    def __init__(self, root: nn.Module, state: ModelState, fresh: Composition, transaction: Transaction) -> None:
        self._root = weakref.ref(root)  # a state must not keep its model alive
        self._state = state
        self._fresh = fresh
        self._transaction = transaction
        self._report: Report | None = None
        self._passing_nbytes = 0
        self._previous = state.composition

    def carry_out(self) -> None:
        """All of it; after an error nothing has changed."""
        try:
            with HeldInterrupts() as interrupts:
                self._transaction.launch(interrupts)
                self._transaction.finish()
                self._commit(interrupts, undoable=False)
        except BaseException:
            self._settle_factors()
            raise
        self._accept()

    def begin(self) -> Pending:
        """All that the host has to do. The state is the new one unless a GPU finds an overflow."""
        with HeldInterrupts() as interrupts:
            self._transaction.launch(interrupts)
            self._commit(interrupts, undoable=True)
            self._state.pending = Pending(self._state.lock, self._transaction, self._accept, self._refuse)
        return self._state.pending

    def _commit(self, interrupts: HeldInterrupts, undoable: bool) -> None:
        try:
            self._transaction.restore_left(interrupts, undoable)
            fault_points.reach("commit")
            self._fresh.held = self._transaction.kept()
            self._fresh.branches = self._transaction.kept_branches()
        except BaseException:
            self._transaction.roll_back()
            raise
        if self._fresh.restore == "none":
            for branch in self._fresh.branches.values():
                branch.becomes_base()
        self._state.composition = self._fresh if self._fresh.restore != "none" else Composition()
        self._mark()

    @property
    def read_nbytes(self) -> int:
        """Bytes of factors read from files."""
        return self._transaction.read_nbytes

    def tell(self, report: Report) -> None:
        """Fills in what the change cost, now or once it is settled."""
        self._report = report
        if self._state.pending is None:
            self._complete(report)

    def _accept(self) -> None:
        self._state.pending = None
        self._transaction.settle()
        kept = self._state.composition.owned
        give_back(lease for lease in self._previous.owned if lease not in kept)
        needed = self._fresh.nbytes
        self._settle_factors()
        self._passing_nbytes = needed - self._state.composition.nbytes
        if self._report is not None:
            self._complete(self._report)

    def _complete(self, report: Report) -> None:
        composition = self._state.composition
        report.stages = {**report.stages, **self._transaction.seconds()}
        report.restore = cost([*composition.held.values(), *composition.branches.values()])
        report.tiers = cost_by_module(composition.held.values())
        for branch in composition.branches.values():
            tier = {"tier": branch.tier, "bytes": branch.nbytes}
            report.tiers.update(dict.fromkeys(branch.names, tier))
        for branch in self._fresh.branches.values():
            report.branches.update(dict.fromkeys(branch.names, branch.describe()))
        memory = self._transaction.memory()
        memory["transient"] += self._passing_nbytes
        report.memory = {
            **memory,
            "restore": composition.undo_nbytes,
            "retained": composition.store.nbytes,
            "retained_on_devices": composition.store.on_devices.nbytes,
            "branches": sum(branch.added_nbytes for branch in composition.branches.values()),
        }
        self._transaction.forget()
        log.report(report)

    def _refuse(self) -> None:
        self._state.pending = None
        self._state.composition = self._previous
        self._mark()
        give_back(lease for lease in self._fresh.owned if lease not in self._previous.owned)
        self._settle_factors()
        self._transaction.forget()

    def _mark(self) -> None:
        root = self._root()
        if root is not None:
            composed_mark.put(root, self._state.composition.held.values(), self._state.composition.branches)

    def _settle_factors(self) -> None:
        """Gives the memory of factors back that can be read again."""
        if self._state.composition.retain == "file":
            self._state.composition.store.let_go()
