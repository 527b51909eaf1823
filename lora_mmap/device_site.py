"""A transaction's weights on one CUDA device: copies of what they were bring them back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from . import fault_points, native_types
from .cuda.device_stream import DeviceStream
from .factor_store import FactorStore
from .factor_stream import Window
from .geometry import Geometry
from .held import Held
from .lowering import lower
from .lowering.jobs import place_of
from .outcomes import EntryPlan
from .overflow import require_finite
from .restore import Saved, mark_written, put_back, save
from .site import Manner, Site
from .terms import WeightPlan

_Job = TypeVar("_Job", native_types.Job, native_types.Gains)


class DeviceSite(Site):
    """Everything is in order on the stream that is current at construction. An error of the GPU itself that breaks
    torch's context loses its memory."""

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: list[WeightPlan],
        old: dict[int, Held],
        device: torch.device,
        manner: Manner,
    ) -> None:
        self._entries = entries
        self._weights = {weight.geometry.address: weight for weight in weights}
        self._old = old
        self._manner = manner
        self._before: dict[int, Saved] = {}  # by address
        self._stream = DeviceStream(entries, weights, device, manner.fast, FactorStore()) if weights else None
        self._owners: list[WeightPlan] = []

    @property
    def windows(self) -> list[Window]:
        return self._stream.windows if self._stream else []

    def check_unchanged(self) -> None:
        if self._stream:
            self._stream.check_unchanged()

    def fuse(self, window: Window) -> None:
        assert self._stream
        fault_points.reach("read")
        self._stream.load(window)
        with self._stream.stage("save"):
            fault_points.reach("save")
            self._save([weight.geometry for weight in window.weights])
        with self._stream.stage("fuse"):
            self._fuse(self._stream, window)

    def _fuse(self, stream: DeviceStream, window: Window) -> None:
        pristine = {address: place for address, held in self._old.items() if (place := held.pristine)}
        put_back(self._partly_covered(window), self._manner.threads)
        fault_points.reach("lower")
        lowered = lower(window.weights, stream, pristine)
        fault_points.reach("fuse")
        if lowered.made:
            self._run(stream.fuse, lowered.made, lowered.made_owners)
        if lowered.gains:
            self._run(stream.gains, lowered.gains, lowered.gains_owners)
        sums = [one for of in lowered.sums.values() for one in of]
        places = [pristine.get(one.weight.geometry.address) or place_of(one.weight.geometry) for one in sums]
        jobs = [one.job(place) for one, place in zip(sums, places, strict=True)]
        self._run(stream.fuse, jobs, [one.weight for one in sums])
        mark_written(weight.geometry.weight for weight in window.weights)

    def seal(self) -> None:
        if self._stream:
            self._stream.seal()

    def restore(self, undoable: bool) -> Iterator[None]:
        left = [held for address, held in self._old.items() if address not in self._weights]
        if undoable:
            self._save([held.geometry for held in left])
        fault_points.reach("restore")
        put_back([held.backup for held in left if held.backup], self._manner.threads)
        yield

    @property
    def is_asynchronous(self) -> bool:
        return self._stream is not None

    def is_done(self) -> bool:
        return self._stream is None or self._stream.is_done()

    def finish(self) -> None:
        if self._stream:
            self._require_finite(self._stream.finish())

    def roll_back(self) -> None:
        put_back(list(self._before.values()), self._manner.threads)

    def kept(self) -> dict[int, Held]:
        kept = {}
        for address, weight in self._weights.items():
            backup = self._old[address].backup if address in self._old else self._before.get(address)
            kept[address] = Held(weight, weight.geometry.weight.detach(), backup=backup)
        return kept

    def settle(self) -> None:
        pass

    @property
    def seconds(self) -> dict[str, float]:
        return self._stream.seconds if self._stream else {}

    def memory(self) -> dict[str, int]:
        kept = self._weights.keys() - self._old.keys()
        transient = sum(saved.nbytes for address, saved in self._before.items() if address not in kept)
        return {**(self._stream.memory if self._stream else {}), "transient": transient}

    def _run(self, run: Callable[[list[_Job]], list[int]], jobs: list[_Job], owners: list[WeightPlan]) -> None:
        first = len(self._owners)
        self._owners += owners
        self._require_finite([first + job for job in run(jobs)])

    def _require_finite(self, overflowed: list[int]) -> None:
        require_finite(self._manner.function, self._entries, [self._owners[job] for job in overflowed])

    def _save(self, geometries: list[Geometry]) -> None:
        self._before.update((saved.geometry.address, saved) for saved in save(geometries, self._manner.threads))

    def _partly_covered(self, window: Window) -> list[Saved]:
        """Pristine bytes of weights some of whose elements only the previous composition may have covered."""
        addresses = [weight.geometry.address for weight in window.weights if not weight.is_covered]
        return [saved for address in addresses if address in self._old and (saved := self._old[address].backup)]
