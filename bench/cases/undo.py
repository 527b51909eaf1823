"""Exact undo: what a journal takes, and what writing one, undoing, switching and restoring from a file cost beside a
fuse and a memcpy."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from lora_mmap import _C, native_types

from ..machine import Limits
from ..registry import Settings, case
from ..results import CaseResult, Goal
from ..timing import TOTAL, Contender, Samples, Spread, interleave

_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_SHAPE, _QUICK_SHAPE = (12288, 3072), (1536, 3072)
_RANKS, _QUICK_RANKS = (16, 64, 128), (16, 64)
_WEIGHT_STD = 0.02
_DELTA = 1e-2  # ||delta|| / ||W|| of what is timed
# Bits per element that a prototype of the block coder took, by ||delta|| / ||W||: fp16, bf16.
_PROTOTYPE = {1e-3: (0.08, 0.10), 1e-2: (0.25, 0.32), 1e-1: (1.3, 1.8), 1.0: (4.8, 7.4)}

_FUSE, _FUSE_BOTH = "fuse", "fuse of both adapters"
_JOURNAL, _HASHES = "fuse + journal", "fuse + hashes"
_UNDO, _SWITCH, _RESTORE = "undo by journal", "switch by journal", "restore from file"
_MEMCPY, _COPY = "memcpy", "torch copy_"
# What is timed, what it is held against, the most that was promised of their times (80 % of a memcpy's speed), and the
# lowest rank that the promise is for.
_PROMISES = (
    (_JOURNAL, _FUSE, 1.3, 64),
    (_HASHES, _FUSE, None, 0),
    (_UNDO, _FUSE, 1.0, 64),
    (_UNDO, _JOURNAL, None, 64),  # the fuse that it takes back
    (_SWITCH, _FUSE_BOTH, 1.2, 64),
    (_RESTORE, _MEMCPY, 1 / 0.8, 0),
    (_RESTORE, _COPY, None, 0),
)


@case("undo")
def run(settings: Settings) -> CaseResult:
    rows, cols = _QUICK_SHAPE if settings.quick else _SHAPE
    result = CaseResult(
        "undo",
        f"One {rows} x {cols} weight in place, factors at its dtype and in memory. The norm of the delta is {_DELTA:g} "
        "of the weight's in what is timed." + (" Reduced by --quick." if settings.quick else ""),
        notes=[
            f"`x ours` is the time over that of `{_FUSE}`, _C.fuse of one adapter; `{_FUSE_BOTH}`: both in one call, "
            "which has the ranks of a switch",
            f"`{_JOURNAL}`: hashes and corrections; `{_HASHES}`: what the file and backup tiers need",
            f"`{_SWITCH}` undoes one adapter, fuses another of the same rank and writes its journal, in one pass",
            f"`{_RESTORE}`: hashes checked, bytes read from a file of the weight's dtype in the page cache",
            f"`{_MEMCPY}`: the C library's, the same bytes, a piece for each thread; `{_COPY}` has as many threads",
            "a ratio is of the best rounds; behind it the range over all rounds, whose contenders alternate; a promise "
            "is judged by the best rounds",
            "after each warm-up the bits of the weight are checked",
        ],
    )
    _measure_journals(result, (rows, cols))
    ambient = torch.get_num_threads()
    try:
        for threads in [ambient] if settings.quick else sorted({1, ambient}):
            torch.set_num_threads(threads)
            limits = Limits(threads)
            result.limits.append(limits)
            for dtype in _DTYPES:
                for rank in _QUICK_RANKS if settings.quick else _RANKS:
                    _measure(result, settings, limits, (rows, cols), dtype, rank)
    finally:
        torch.set_num_threads(ambient)
    return result


class _Adapter:
    """One LoRA of a given rank, and its one term in native form."""

    def __init__(self, shape: tuple[int, int], rank: int, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.up = torch.randn(shape[0], rank, generator=generator).to(dtype)
        self.down = torch.randn(rank, shape[1], generator=generator).to(dtype)

    def term(self, weight: Tensor, relative: float) -> native_types.Term:
        """Scaled to ||delta|| = ``relative`` * ||weight||."""
        up, down = self.up.double(), self.down.double()
        norm = math.sqrt(float(((up.t() @ up) * (down @ down.t())).sum()))
        scale = relative * float(torch.linalg.vector_norm(weight.double())) / norm
        (rank, cols), dtype = self.down.shape, _DTYPES[self.up.dtype]
        return (self.down.data_ptr(), dtype, cols, 1, self.up.data_ptr(), dtype, rank, 1, rank, 0, 0, scale)


def _weight(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * _WEIGHT_STD).to(dtype)


def _record(weight: Tensor, corrections: bool) -> _C.Record:
    rows, cols = weight.shape
    return _C.Record(rows, cols, _DTYPES[weight.dtype], corrections)


def _layer(record: _C.Record, *terms: native_types.Term) -> native_types.Side:
    return list(terms), record, 0, 0, 0


def _step(
    weight: Tensor, threads: int, old: native_types.Side | None = None, new: native_types.Side | None = None
) -> None:
    rows, cols = weight.shape
    step = (weight.data_ptr(), rows, cols, cols, 1, _DTYPES[weight.dtype], old, new, None)
    if _C.step([step], threads) != ([], []):
        raise AssertionError("a step overflowed, or found its own tiles foreign")


def _measure_journals(result: CaseResult, shape: tuple[int, int]) -> None:
    """Bits per element by dtype and size of the delta, beside the prototype's."""
    threads = torch.get_num_threads()
    found: dict[str, dict[str, float]] = {}
    for column, (dtype, name) in enumerate(_DTYPES.items()):
        weight = _weight(shape, dtype)
        adapter = _Adapter(shape, 64, dtype, seed=1)
        for relative, prototype in _PROTOTYPE.items():
            fused, record = weight.clone(), _record(weight, corrections=True)
            _step(fused, threads, new=_layer(record, adapter.term(weight, relative)))
            bits = 8 * record.nbytes / weight.numel()
            found.setdefault(name, {})[f"{relative:g}"] = bits
            what = f"journal, {name}, relative delta {relative:g}"
            figure = f"{bits:.3f} bits per element, {record.nbytes / record.backup_nbytes:.1%} of a backup"
            if column < len(prototype):
                figure += f" (prototype: {prototype[column]:g} bits)"
                times = bits / prototype[column]
                result.goals.append(Goal(f"{what}: <= 1.5 x the prototype's", f"{times:.2f} x", times <= 1.5))
            result.summary.append((what, figure))
    result.facts["journal_bits_per_element"] = found


class _Subject:
    """Two tensors of one weight, ``weight`` as it was and ``fused`` with the first of two adapters in it; contenders
    begin there and are brought back. A file has the weight's bytes."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: torch.dtype, rank: int, threads: int) -> None:
        self.threads = threads
        self.pristine = _weight(shape, dtype)
        save_file({"weight": self.pristine}, path)
        self.file = _C.File(path)
        self.header = self.file.read_header()
        self.adapters = [_Adapter(shape, rank, dtype, seed) for seed in (1, 2)]
        self.first, self.second = (adapter.term(self.pristine, _DELTA) for adapter in self.adapters)
        self.weight, self.fused = self.pristine.clone(), self.pristine.clone()
        self.held = _layer(_record(self.fused, corrections=True), self.first)
        _step(self.fused, threads, new=self.held)
        self.of_first = self.fused.clone()
        self.of_second, self.of_both = self._fused_with(self.second), self._fused_with(self.first, self.second)

    def fuse(self, *terms: native_types.Term) -> None:
        rows, cols = self.weight.shape
        at = self.weight.data_ptr()
        if _C.fuse([(at, at, rows, cols, cols, 1, cols, 1, _DTYPES[self.weight.dtype], list(terms))], self.threads):
            raise AssertionError("the fused weight is not finite")

    def _fused_with(self, *terms: native_types.Term) -> Tensor:
        self.fuse(*terms)
        fused = self.weight.clone()
        self.back()
        return fused

    def restore_from_file(self) -> None:
        rows, cols = self.fused.shape
        dtype = _DTYPES[self.fused.dtype]
        source = (self.file, self.header, self.header.offsets()[0], dtype, cols, 1, 0)
        item = (*source, self.fused.data_ptr(), rows, cols, cols, 1, dtype, self.held[1])
        if _C.restore_from_file([item], self.threads):
            raise AssertionError("restoring found its own tiles foreign")

    def again(self) -> None:
        _step(self.fused, self.threads, new=self.held)

    def back(self) -> None:
        self.weight.copy_(self.pristine)


class _Timed(NamedTuple):
    """A contender, the tensor that it writes to, and what has to stand there then."""

    name: str
    run: Callable[[], None]
    weight: Tensor
    expected: Tensor
    restore: Callable[[], None]

    def check(self) -> None:
        if not torch.equal(_bits(self.weight), _bits(self.expected)):
            raise AssertionError(f"{self.name} left other bits than it should have")

    @property
    def contender(self) -> Contender:
        def run() -> dict[str, float]:
            self.run()
            return {}

        return Contender(self.name, run, self.restore)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32 if tensor.itemsize == 4 else torch.int16)


def _timed(s: _Subject, memcpy: Callable[[Tensor, Tensor], None]) -> list[_Timed]:
    """All of them. What keeps a record gets a new one after each run; the first is made here."""
    fresh = {name: _layer(_record(s.pristine, name != _HASHES), s.first) for name in (_JOURNAL, _HASHES)}
    fresh[_SWITCH] = _layer(_record(s.pristine, True), s.second)

    def renewed(name: str) -> None:
        terms, record, *_ = fresh[name]
        fresh[name] = _layer(_record(s.pristine, record.has_corrections), *terms)

    def by_step(name: str) -> _Timed:
        def restore() -> None:
            s.back()
            renewed(name)

        return _Timed(name, lambda: _step(s.weight, s.threads, new=fresh[name]), s.weight, s.of_first, restore)

    def switch_back() -> None:
        _step(s.fused, s.threads, fresh[_SWITCH], s.held)
        renewed(_SWITCH)

    return [
        _Timed(_FUSE, lambda: s.fuse(s.first), s.weight, s.of_first, s.back),
        by_step(_JOURNAL),
        by_step(_HASHES),
        _Timed(_UNDO, lambda: _step(s.fused, s.threads, s.held), s.fused, s.pristine, s.again),
        _Timed(_FUSE_BOTH, lambda: s.fuse(s.first, s.second), s.weight, s.of_both, s.back),
        _Timed(_SWITCH, lambda: _step(s.fused, s.threads, s.held, fresh[_SWITCH]), s.fused, s.of_second, switch_back),
        _Timed(_RESTORE, s.restore_from_file, s.fused, s.pristine, s.again),
        _Timed(_MEMCPY, lambda: memcpy(s.weight, s.pristine), s.weight, s.pristine, s.back),
        _Timed(_COPY, lambda: s.back(), s.weight, s.pristine, s.back),
    ]


@contextmanager
def _memcpy(threads: int) -> Iterator[Callable[[Tensor, Tensor], None]]:
    """The C library's memcpy in ``threads`` pieces; ctypes lets go of the GIL meanwhile."""
    with ThreadPoolExecutor(threads) as pool:

        def copy(to: Tensor, source: Tensor) -> None:
            piece = -(-to.nbytes // threads)

            def one(number: int) -> None:
                begin = number * piece
                nbytes = min(piece, to.nbytes - begin)
                ctypes.memmove(to.data_ptr() + begin, source.data_ptr() + begin, nbytes)

            if threads == 1:
                one(0)
            else:
                list(pool.map(one, range(threads)))

        yield copy


def _measure(
    result: CaseResult, settings: Settings, limits: Limits, shape: tuple[int, int], dtype: torch.dtype, rank: int
) -> None:
    subject = _Subject(settings.scratch / "undo.safetensors", shape, dtype, rank, limits.threads)
    with _memcpy(limits.threads) as memcpy:
        timed = _timed(subject, memcpy)
        checks = {one.name: one.check for one in timed}
        samples = interleave(
            [one.contender for one in timed],
            settings.rounds(full=9, quick=3),
            before_round=limits.probe,
            after_warm_up=lambda contender: checks[contender.name](),
        )
    subject.file.close()
    variant = f"{_DTYPES[dtype]} rank {rank}, {limits.threads} thread(s)"
    result.add(variant, samples, {}, ours=_FUSE)
    for name, beside, most, lowest in _PROMISES:
        ratio, figure = _ratio(samples, name, beside)
        result.facts.setdefault("ratios", {}).setdefault(variant, {})[f"{name} / {beside}"] = ratio
        if most is not None and rank >= lowest:
            result.goals.append(Goal(f"{variant}: {name} <= {most:g} x {beside}", figure, ratio["best"] <= most))
        elif most is None:
            result.summary.append((f"{variant}: {name} / {beside}", figure))


def _ratio(samples: dict[str, Samples], name: str, beside: str) -> tuple[dict[str, float], str]:
    """Of the best rounds, and the range of the ratios within a round."""
    one, other = samples[name].stages[TOTAL], samples[beside].stages[TOTAL]
    best = min(one) / min(other)
    rounds = Spread.of([a / b for a, b in zip(one, other, strict=True)])
    figure = f"{best:.2f} x (rounds {rounds.min:.2f} .. {rounds.median:.2f} .. {rounds.max:.2f})"
    return {"best": best, "min": rounds.min, "median": rounds.median, "max": rounds.max}, figure
