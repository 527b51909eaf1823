"""Factors on their way into branches: what the native core writes, and what goes to a device after that."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .. import _C
from ..factor_stream import FactorStream
from ..loading.torch_dtypes import TORCH_DTYPES
from ..lowering.jobs import ITEMSIZE
from ..native_types import FactorWrite
from ..outcomes import EntryPlan
from ..tensor_source import dtype_name
from ..terms import Cut, Range
from .branch import Branch, Factors, Layout
from .branch_plan import BranchPlan, Span
from .held_branch import HeldBranch
from .made_factors import make

_TILE = 256  # elements of 16 ranks and 16 features that lie together


class _Source(NamedTuple):
    """A factor, wherever it lies; strides in elements."""

    address: int
    dtype: str
    feature_stride: int
    rank_stride: int

    def at(self, feature: int) -> tuple[int, str, int, int]:
        """The same from that feature on."""
        address = self.address + feature * self.feature_stride * ITEMSIZE[self.dtype]
        return address, self.dtype, self.feature_stride, self.rank_stride


class _Side(NamedTuple):
    """The ranks of ours of one tensor of a branch."""

    layout: Layout
    address: int
    feature_pitch: int
    rank_pitch: int
    dtype: str

    def job(self, features: Range, ranks: Range, source: _Source, first: int, scale: float, at: int) -> FactorWrite:
        return (*self, *features, *ranks, *source.at(first), scale, at)


class FactorJobs:
    """The jobs of one window, whose factors ``stream`` has."""

    def __init__(self, entries: Sequence[EntryPlan], stream: FactorStream[BranchPlan], svd_rank: int) -> None:
        self._entries = entries
        self._stream = stream
        self._svd_rank = svd_rank
        self._zeros: list[FactorWrite] = []
        self._jobs: list[FactorWrite] = []
        self._owners: list[BranchPlan] = []
        self._staged: list[tuple[torch.Tensor, torch.Tensor]] = []  # where ranks go, and what goes there
        self._made: list[torch.Tensor] = []

    def add(self, plan: BranchPlan, held: HeldBranch, branch: Branch, factors: Factors) -> None:
        """Has the plan's ranks written into the branch, and all others of ours cleared."""
        down, up = self.clear(held, branch, factors)
        for span in plan.spans:
            ranks = (span.first, span.first + span.rank)
            beside, above = self._plain(span) if span.is_plain else self._make(span, held)
            jobs = [down.job(span.cols, ranks, beside, span.down_col, 1.0, 0)]
            for cut in span.cuts:
                jobs.append(up.job(cut.rows, ranks, above, cut.up_row, span.scale, self._map(cut)))
            self._jobs += jobs
            self._owners += [plan] * len(jobs)

    def run(self, threads: int) -> list[BranchPlan]:
        """Writes all of them; returns the plans whose factors are not finite in the branch's dtype."""
        _C.write_factors(self._zeros, threads)
        counts = _C.write_factors(self._jobs, threads)
        overflowed = [owner for owner, count in zip(self._owners, counts, strict=True) if count]
        if not overflowed:
            for tail, staged in self._staged:
                tail.copy_(staged)
        return overflowed

    def clear(self, held: HeldBranch, branch: Branch, factors: Factors) -> tuple[_Side, _Side]:
        """Has all ranks of ours cleared; returns where they are written."""
        name = dtype_name(held.dtype)
        assert name is not None
        sides = []
        features = (held.place.cols, held.place.rows)
        for layout, factor, count in zip(branch.layouts, factors, features, strict=True):
            extent = branch.extent(factor, held.base, held.base + held.capacity)
            address, stride = factor.data_ptr() + extent.begin * factor.element_size(), extent.row_stride
            if factor.device.type != "cpu":
                staged = torch.empty(extent.rows, extent.cols, dtype=factor.dtype, device="cpu")
                self._staged.append((extent.of(factor), staged))
                address, stride = staged.data_ptr(), extent.cols
            pitches = (1, stride) if layout == "plain" else (stride, _TILE)
            side = _Side(layout, address, *pitches, name)
            self._zeros.append((*side, 0, count, 0, held.capacity, None, name, 0, 0, 1.0, 0))
            sides.append(side)
        return sides[0], sides[1]

    def _plain(self, span: Span) -> tuple[_Source, _Source]:
        """The file's own tensors."""
        formula = span.formula
        matrix = formula.matrix
        assert matrix.up is not None
        sources = []
        for view, feature, rank in (
            (matrix.down, matrix.down.col, matrix.down.row),
            (matrix.up, matrix.up.row, matrix.up.col),
        ):
            assert isinstance(view.tensor, int)
            address = self._stream.address(span.entry, view.tensor)
            sources.append(_Source(address, self._stream.dtype(span.entry, view.tensor), feature, rank))
        return sources[0], sources[1]

    def _make(self, span: Span, held: HeldBranch) -> tuple[_Source, _Source]:
        shapes = self._entries[span.entry].adapter.source.shapes
        most = self._svd_rank if span.is_cut else 0
        up, down, retained = make(span.formula, shapes, lambda tensor: self._values(span.entry, tensor), most)
        if span.is_cut:
            held.retained[span.entry] = min(retained, held.retained.get(span.entry, 1.0))
        up, down = up.t().contiguous(), down.contiguous()
        self._made += [up, down]
        sources = [_Source(made.data_ptr(), "F32", 1, made.stride(0)) for made in (down, up)]
        return sources[0], sources[1]

    def _values(self, entry: int, tensor: int) -> torch.Tensor:
        """A tensor of the file as float32."""
        source = self._entries[entry].adapter.source
        memory = (ctypes.c_char * source.nbytes[tensor]).from_address(self._stream.address(entry, tensor))
        return torch.frombuffer(memory, dtype=TORCH_DTYPES[source.dtypes[tensor]]).float()

    def _map(self, cut: Cut) -> int:
        """Where the map of the cut's rows is; plans keep it."""
        return 0 if cut.row_map is None else cut.row_map[cut.rows[0] :].ctypes.data
