"""One composition as a transaction: every weight ends in the new state, or every weight keeps the bytes it had."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from . import _C, native_types
from .cuda.device_stream import DeviceStream
from .errors import FusionOverflowError
from .factor_stream import FactorStream, Window
from .geometry import Geometry
from .interrupts import HeldInterrupts
from .lowering import lower
from .plan import Plan
from .restore import Saved, mark_written, put_back, save
from .staging import HostStream
from .terms import WeightPlan

Numerics = Literal["ordered", "fast"]
_Job = TypeVar("_Job", native_types.Job, native_types.Gains)
# Stages every report has, done or not.
_STAGES = ("read", "save", "fuse", "restore")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a transaction works: threads on the CPU, arithmetic on GPUs, whether it keeps what undoes it."""

    threads: int
    numerics: Numerics
    keep: bool


class Transaction:
    """Writes pristine + sum of all terms into the weights of ``plan`` and brings back those that only the previous
    composition had touched. ``pristine`` holds the bytes of all weights that are not pristine now, by address.

    :meth:`launch`, then :meth:`finish`; both with interrupts held. After an error of either every weight holds the
    bytes it held before: ReadError (a file changed or ended early), FusionOverflowError (a result is not finite),
    CudaError, whatever interrupted it. An error of the GPU itself that breaks torch's context loses its memory.
    """

    def __init__(self, plan: Plan, pristine: Mapping[int, Saved], manner: Manner) -> None:
        self._plan = plan
        self._pristine = pristine
        self._manner = manner
        self._before: dict[int, Saved] = {}  # by address
        self._restore_seconds = 0.0
        self._streams = [self._stream(device) for device in _devices(plan)]
        self._owners: dict[FactorStream, list[WeightPlan]] = {stream: [] for stream in self._streams}

    def launch(self, interrupts: HeldInterrupts) -> None:
        """Reads every factor and fuses, or tells the GPUs to; an overflow on the CPU is found here."""
        for stream in self._streams:
            stream.check_unchanged()
        try:
            for stream in self._streams:
                for window in stream.windows:
                    self._fuse_window(stream, window)
                    interrupts.check()
                stream.seal()
            for stream in self._streams:
                stream.check_unchanged()
            interrupts.check()
        except BaseException:
            self.roll_back()
            raise

    def restore_left(self, undoable: bool) -> None:
        """Brings back the weights that only the previous composition had touched. ``undoable`` where :meth:`finish` may
        still fail: their present bytes are then saved first."""
        left = [saved for address, saved in self._pristine.items() if address not in self._plan.weights]
        if undoable:
            for device in {saved.geometry.device for saved in left}:
                self._save([saved.geometry for saved in left if saved.geometry.device == device])
        begin = time.perf_counter()
        put_back(left, self._manner.threads)
        self._restore_seconds = time.perf_counter() - begin

    @property
    def is_asynchronous(self) -> bool:
        """True when a GPU does some of it, so that :meth:`finish` may wait and may fail."""
        return any(isinstance(stream, DeviceStream) for stream in self._streams)

    @property
    def is_done(self) -> bool:
        """True when :meth:`finish` would not wait for a GPU."""
        return all(stream.is_done() for stream in self._streams)

    def finish(self) -> None:
        """Waits for the GPUs; an overflow there is found here."""
        try:
            for stream in self._streams:
                self._require_finite(stream, stream.finish())
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Writes back what :meth:`launch` had saved."""
        put_back(list(self._before.values()), self._manner.threads)

    def forget(self) -> None:
        """Lets go of the model's weights, and of what would undo this transaction."""
        self._plan.forget_weights()
        self._before.clear()
        self._owners.clear()
        self._streams.clear()

    def kept(self) -> dict[int, Saved]:
        """Pristine bytes of every weight that is not pristine now, by address; empty unless they are to be kept."""
        if not self._manner.keep:
            return {}
        planned = self._plan.weights
        return {
            address: self._pristine.get(address, saved) for address, saved in self._before.items() if address in planned
        }

    def seconds(self) -> dict[str, float]:
        """Time per stage over all devices, which work one after the other."""
        total = dict.fromkeys(_STAGES, 0.0)
        total["restore"] = self._restore_seconds
        for stream in self._streams:
            for stage, seconds in stream.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total

    def memory(self) -> dict[str, int]:
        """Bytes that the transaction needed, by kind. What is ``pinned`` stays for the next one."""
        total = Counter({"staging": 0, "arena": 0, "pinned": _C.cuda_pinned_nbytes() if self.is_asynchronous else 0})
        for stream in self._streams:
            total.update(stream.memory)
        kept = {id(saved) for saved in self.kept().values()}
        total["transient"] = sum(saved.nbytes for saved in self._before.values() if id(saved) not in kept)
        return dict(total)

    def _stream(self, device: torch.device) -> FactorStream:
        weights = [weight for weight in self._plan.weights.values() if weight.geometry.device == device]
        if device.type == "cpu":
            return HostStream(self._plan.entries, weights, self._manner.threads)
        return DeviceStream(self._plan.entries, weights, device, self._manner.numerics == "fast")

    def _fuse_window(self, stream: FactorStream, window: Window) -> None:
        addresses = stream.load(window)
        with stream.stage("save"):
            self._save([weight.geometry for weight in window.weights])
        with stream.stage("fuse"):
            put_back(self._partly_covered(window), self._manner.threads)
            lowered = lower(window.weights, self._plan.entries, stream, addresses, self._pristine)
            if lowered.made:
                self._run(stream, stream.fuse, lowered.made, lowered.made_owners)
            if lowered.gains:
                self._run(stream, stream.gains, lowered.gains, lowered.gains_owners)
            self._run(stream, stream.fuse, lowered.jobs, lowered.owners)
            mark_written(weight.geometry.weight for weight in window.weights)

    def _run(
        self, stream: FactorStream, run: Callable[[list[_Job]], list[int]], jobs: list[_Job], owners: list[WeightPlan]
    ) -> None:
        first = len(self._owners[stream])
        self._owners[stream] += owners
        self._require_finite(stream, [first + job for job in run(jobs)])

    def _save(self, geometries: list[Geometry]) -> None:
        self._before.update((saved.geometry.address, saved) for saved in save(geometries, self._manner.threads))

    def _partly_covered(self, window: Window) -> list[Saved]:
        """Pristine bytes of weights some of whose elements only the previous composition may have covered."""
        pristine = self._pristine
        return [
            pristine[weight.geometry.address]
            for weight in window.weights
            if weight.geometry.address in pristine and not weight.is_covered
        ]

    def _require_finite(self, stream: FactorStream, overflowed: list[int]) -> None:
        if not overflowed:
            return
        owners = self._owners[stream]
        weight = owners[overflowed[0]]
        count = len({id(owners[job]) for job in overflowed})
        entries = sorted({term.entry for term in weight.terms})
        adapters = ", ".join(
            f"{self._plan.entries[entry].adapter.label} at strength {self._plan.entries[entry].strength:g}"
            for entry in entries
        )
        more = f" (and {count - 1} more weights)" if count > 1 else ""
        raise FusionOverflowError(
            f"[compose] weight '{weight.geometry.path}' ({weight.geometry.dtype}) would not be finite with "
            f"{adapters}{more}; expected finite results, every weight was put back as it was before"
        )


def _devices(plan: Plan) -> list[torch.device]:
    """The devices of the plan's weights, in order of their first."""
    return list(dict.fromkeys(weight.geometry.device for weight in plan.weights.values()))
