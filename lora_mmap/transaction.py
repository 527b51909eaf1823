"""One composition as a transaction: every weight ends in the new state, or every weight keeps the bytes it had."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import _C, native_types
from .errors import FusionOverflowError
from .interrupts import HeldInterrupts
from .plan import Plan, Term, WeightPlan
from .restore import Saved, mark_written, put_back, save
from .staging import Factor, FactorStream, Window


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


def apply(
    plan: Plan, pristine: Mapping[int, Saved], keep: bool, threads: int, commit: Callable[[dict[int, Saved]], None]
) -> Measured:
    """Writes pristine + sum of all terms into the weights of ``plan`` and brings back those that only the previous
    composition had touched. ``pristine`` holds the bytes of all weights that are not pristine now, by address.

    ``commit`` is called once, when every weight is written, with the same for the new state (empty unless ``keep``);
    no interrupt arrives between the last write and its return. Raises ReadError (a file changed or ended early),
    FusionOverflowError (a result is not finite) or whatever interrupted it; if that was before ``commit``, every weight
    holds the bytes it held before.
    """
    with HeldInterrupts() as interrupts:
        return _Transaction(plan, pristine, keep, threads).run(interrupts, commit)


class _Transaction:
    def __init__(self, plan: Plan, pristine: Mapping[int, Saved], keep: bool, threads: int) -> None:
        self.plan = plan
        self.pristine = pristine
        self.keep = keep
        self.threads = threads
        self.measured = Measured()
        self.before: dict[int, Saved] = {}  # by address

    def run(self, interrupts: HeldInterrupts, commit: Callable[[dict[int, Saved]], None]) -> Measured:
        stream = FactorStream(self.plan.entries, self.plan.weights.values(), self.threads)
        stream.check_unchanged()
        try:
            for window in stream.windows:
                self._fuse_window(stream, window)
                interrupts.check()
            stream.check_unchanged()
            interrupts.check()
            self._commit(commit)
        except BaseException:
            put_back(list(self.before.values()), self.threads)
            raise
        self.measured.staging_nbytes = stream.staging_nbytes
        return self.measured

    def _fuse_window(self, stream: FactorStream, window: Window) -> None:
        with self.measured.stage("read"):
            addresses = stream.load(window)
        with self.measured.stage("save"):
            geometries = [weight.geometry for weight in window.weights]
            self.before.update((saved.geometry.address, saved) for saved in save(geometries, self.threads))
        with self.measured.stage("fuse"):
            put_back(self._partly_covered(window), self.threads)
            jobs, owners = [], []
            for weight in window.weights:
                for job in self._jobs(weight, stream, addresses):
                    jobs.append(job)
                    owners.append(weight)
            overflowed = _C.fuse(jobs, self.threads)
            mark_written(weight.geometry.weight for weight in window.weights)
        if overflowed:
            raise self._overflow(owners[overflowed[0]], len({id(owners[job]) for job in overflowed}))

    def _partly_covered(self, window: Window) -> list[Saved]:
        """Pristine bytes of weights some of whose rows only the previous composition may have covered."""
        pristine = self.pristine
        return [
            pristine[weight.geometry.address]
            for weight in window.weights
            if weight.geometry.address in pristine
            and sum(end - begin for begin, end, _ in weight.bands()) < weight.geometry.rows
        ]

    def _jobs(self, weight: WeightPlan, stream: FactorStream, addresses: dict[Factor, int]) -> list[native_types.Job]:
        geometry = weight.geometry
        pristine = self.pristine.get(geometry.address)
        base, base_row, base_col = geometry.address, geometry.row_stride, geometry.col_stride
        if pristine is not None:
            base, base_row, base_col = pristine.address, geometry.cols, 1
        jobs: list[native_types.Job] = []
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
        self, term: Term, begin: int, weight: WeightPlan, stream: FactorStream, addresses: dict[Factor, int]
    ) -> native_types.Term:
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

    def _commit(self, commit: Callable[[dict[int, Saved]], None]) -> None:
        left = [saved for address, saved in self.pristine.items() if address not in self.plan.weights]
        with self.measured.stage("restore"):
            put_back(left, self.threads)
        self.measured.transient_nbytes = sum(
            saved.nbytes for address, saved in self.before.items() if not self.keep or address in self.pristine
        )
        kept = {address: self.pristine.get(address, saved) for address, saved in self.before.items()}
        commit(kept if self.keep else {})

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
