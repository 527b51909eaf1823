"""Moves of weights on a CUDA device: what goes wrong is known once the device's flags have come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from . import _C, fault_points, native_types
from .cuda import from_torch, launches
from .cuda.device_record import DeviceRecord, put_used_words, shrink_to_words
from .cuda.flags import Flags
from .foreign import Foreign
from .held import Held, Move
from .lowering.jobs import Place, Sum
from .steps import Outcome, OwnedStep, Steps
from .terms import WeightPlan


@dataclass(slots=True)
class Findings(Outcome):
    """``full``: what had no room for the corrections of some tiles, which were not written."""

    full: list[Held] = field(default_factory=list)


class DeviceSteps(Steps):
    """By grouped launches on the stream that is current, in ordered arithmetic; with ``force`` hashes are not looked
    at. :meth:`send`, then :meth:`receive`, tell what the launches since found."""

    def __init__(self, device: torch.device, force: bool) -> None:
        self._device = device
        self._force = force
        self._flags = Flags(device)
        self._owners: list[WeightPlan | OwnedStep] = []  # of the flags, in their order
        self._sent: list[DeviceRecord] = []  # whose used words come back with the flags
        self.most_table_nbytes = 0
        self.trimmed_nbytes = 0

    def fuse(self, jobs: list[native_types.Job], owners: Sequence[WeightPlan], fast: bool) -> None:
        """Fuses without a record of what was done. May use tensor cores if ``fast``."""
        launches.fuse(self._device, jobs, self._flags.take(len(jobs)), fast)
        self._owners += owners

    def wait_for_copies(self) -> None:
        _C.cuda_event(self._device.index, from_torch.current_stream(self._device)).wait()

    def base_of(self, move: Move, one: Sum) -> Place | None:
        """The kernels compute terms that take the base from memory alone."""
        held = move.new
        if one.base is None and held and move.old and not held.plan.is_additive and move.old.pristine is None:
            return held.pristine
        return one.base

    def send(self, records: Iterable[native_types.Record] = ()) -> None:
        """What was found so far goes to the host. ``records`` have been filled by now, and are trimmed on arrival."""
        self._sent = [record for record in records if isinstance(record, DeviceRecord) and record.has_corrections]
        if self._sent:
            put_used_words(self._sent, self._flags.take(len(self._sent)))
        self._flags.send()

    @property
    def is_sent(self) -> bool:
        return self._flags.is_sent

    def is_here(self) -> bool:
        """True when :meth:`receive` would not wait."""
        return self._flags.is_here()

    def receive(self) -> Findings:
        """Waits for what was sent."""
        words = self._flags.receive()
        owners, self._owners = self._owners, []
        records, self._sent = self._sent, []
        findings = Findings()
        for word, owner in zip(words.tolist(), owners, strict=False):
            if word:
                self._add(findings, word, owner)
        self._trim(records, words[len(owners) :].tolist())
        return findings

    def forget(self) -> None:
        """What was found since the last time."""
        self._flags = Flags(self._device)
        self._owners, self._sent = [], []

    def _add(self, findings: Findings, word: int, owner: WeightPlan | OwnedStep) -> None:
        if isinstance(owner, WeightPlan):
            findings.overflowed.append(owner)
            return
        if word & launches.OVERFLOW:
            findings.overflowed.append(owner.held.plan)
        if word & launches.FULL:
            findings.full.append(owner.held)
        if word & launches.FOREIGN:
            side = owner.step[6]
            assert side is not None
            assert isinstance(side[1], DeviceRecord)
            tile = side[1].foreign_tile or (0, 0)
            side[1].forget_foreign_tile()
            (top, _), (left, _), _ = owner.rectangle
            findings.foreign.append(Foreign(owner.held.geometry, top + tile[0], left + tile[1]))

    def _trim(self, records: list[DeviceRecord], used: list[int]) -> None:
        before = sum(record.nbytes for record in records)
        try:
            shrink_to_words(records, used)
        except from_torch.OutOfMemoryError:
            return  # they keep what they have, which is enough
        self.trimmed_nbytes += before - sum(record.nbytes for record in records)

    def _fuse(self, jobs: list[native_types.Job], owners: list[WeightPlan], outcome: Outcome) -> None:
        self.fuse(jobs, owners, fast=False)

    def _gains(self, jobs: list[native_types.Gains], owners: list[WeightPlan], outcome: Outcome) -> None:
        nbytes = launches.gains(self._device, jobs, self._flags.take(len(jobs)))
        self.most_table_nbytes = max(self.most_table_nbytes, nbytes)
        self._owners += owners

    def _step(self, steps: list[OwnedStep], outcome: Outcome) -> None:
        fault_points.reach("fuse")
        launches.step(self._device, [one.step for one in steps], self._flags.take(len(steps)), self._force)
        self._owners += steps
