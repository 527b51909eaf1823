"""One composition as a transaction: every weight ends in the new state, or every weight keeps the bytes it had."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from . import _C
from .errors import FusionOverflowError
from .geometry import Key
from .model_state import Composition
from .plan import Plan, Term, WeightPlan
from .restore import Saved, mark_written, put_back, save
from .staging import FactorStream, Window


@dataclass(slots=True)
class Measured:
    """What a transaction cost: seconds per stage, and the bytes of anonymous memory it needed at most."""

    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "save": 0.0, "fuse": 0.0, "restore": 0.0})
    staging_nbytes: int = 0
    transient_nbytes: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begin


def apply(plan: Plan, composition: Composition, restore: str, threads: int) -> Measured:
    """Writes pristine + sum of all terms into the weights of ``plan`` and brings back those that only the previous
    composition had touched. ``composition.pristine`` is updated as the last step.

    Raises ReadError (a file changed or ended early), FusionOverflowError (a result is not finite) or whatever
    interrupted it; every weight then holds the bytes it held before.
    """
    return _Transaction(plan, composition, restore, threads).run()


class _Transaction:
    def __init__(self, plan: Plan, composition: Composition, restore: str, threads: int) -> None:
        self.plan = plan
        self.composition = composition
        self.keep = restore != "none"
        self.threads = threads
        self.measured = Measured()
        self.before: dict[Key, Saved] = {}

    def run(self) -> Measured:
        stream = FactorStream(self.plan.entries, self.plan.weights.values(), self.threads)
        stream.check_unchanged()
        try:
            for window in stream.windows:
                self._fuse_window(stream, window)
            stream.check_unchanged()
            with uninterrupted():
                self._commit()
        except BaseException:
            with uninterrupted():
                put_back(list(self.before.values()), self.threads)
            raise
        self.measured.staging_nbytes = stream.staging_nbytes
        return self.measured

    def _fuse_window(self, stream: FactorStream, window: Window) -> None:
        with self.measured.stage("read"):
            addresses = stream.load(window)
        with self.measured.stage("save"):
            geometries = [weight.geometry for weight in window.weights]
            self.before.update((saved.geometry.key, saved) for saved in save(geometries, self.threads))
        with self.measured.stage("fuse"):
            jobs, owners = [], []
            for weight in window.weights:
                for job in self._jobs(weight, stream, addresses):
                    jobs.append(job)
                    owners.append(weight)
            overflowed = _C.fuse(jobs, self.threads)
            mark_written(weight.geometry.weight for weight in window.weights)
        if overflowed:
            raise self._overflow(owners[overflowed[0]], len({id(owners[job]) for job in overflowed}))

    def _jobs(self, weight: WeightPlan, stream: FactorStream, addresses: dict[tuple[int, int], int]) -> list[_C.Job]:
        geometry = weight.geometry
        pristine = self.composition.pristine.get(geometry.key)
        base, base_row, base_col = geometry.address, geometry.row_stride, geometry.col_stride
        if pristine is not None:
            base, base_row, base_col = pristine.address, geometry.cols, 1
        jobs: list[_C.Job] = []
        for begin, end, terms in weight.bands():
            jobs.append(
                (
                    geometry.address + begin * geometry.row_stride * geometry.itemsize,
                    base + begin * base_row * geometry.itemsize,
                    end - begin,
                    geometry.cols,
                    geometry.row_stride,
                    geometry.col_stride,
                    base_row,
                    base_col,
                    geometry.dtype,
                    [self._term(term, begin, weight, stream, addresses) for term in terms],
                )
            )
        return jobs

    def _term(
        self, term: Term, begin: int, weight: WeightPlan, stream: FactorStream, addresses: dict[tuple[int, int], int]
    ) -> _C.Term:
        pair = term.pair
        source = self.plan.entries[term.entry].adapter.source
        up_dtype = source.dtypes[pair.up]
        up_itemsize = source.nbytes[pair.up] // (pair.rows * pair.rank)
        up_row = term.up_row + begin - term.begin
        columns = weight.geometry.column_map
        return (
            addresses[stream.factor(term.entry, pair.down)],
            source.dtypes[pair.down],
            pair.cols,
            addresses[stream.factor(term.entry, pair.up)] + up_row * pair.rank * up_itemsize,
            up_dtype,
            pair.rank,
            pair.rank,
            term.scale,
            0,
            0 if columns is None else columns.ctypes.data,
        )

    def _commit(self) -> None:
        composition, fused = self.composition, self.plan.weights
        left = [saved for key, saved in composition.pristine.items() if key not in fused]
        with self.measured.stage("restore"):
            put_back(left, self.threads)
        pristine = {key: composition.pristine.get(key, saved) for key, saved in self.before.items()}
        self.measured.transient_nbytes = sum(
            saved.nbytes for key, saved in self.before.items() if not self.keep or key in composition.pristine
        )
        composition.pristine = pristine if self.keep else {}

    def _overflow(self, weight: WeightPlan, count: int) -> FusionOverflowError:
        entries = sorted({term.entry for term in weight.terms})
        adapters = ", ".join(
            f"{self.plan.entries[entry].adapter.label} at strength {self.plan.entries[entry].strength:g}"
            for entry in entries
        )
        more = f" (and {count - 1} more weights read with it)" if count > 1 else ""
        return FusionOverflowError(
            f"[compose] weight '{weight.geometry.name}.weight' ({weight.geometry.dtype}) would not be finite with "
            f"{adapters}{more}; expected finite results, every weight was put back as it was before"
        )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds a Ctrl-C back until the block is done. Only the main thread can receive one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received and callable(previous):
            previous(*received[0])
