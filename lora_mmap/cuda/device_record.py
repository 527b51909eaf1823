"""What is kept on a device of one rectangle of a weight, so that its pristine bits come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from .. import _C, native_types
from ..errors import ArgumentError
from . import from_torch, launches

# Memory for corrections is taken before anybody knows how many there are: this part of the weight's bytes, a little for
# small ones. What is left over goes back with shrink(); a tile that finds no room is not written.
PART_OF_WEIGHT = 8
LEAST_NBYTES = 1024
_ITEM_NBYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
# RecordHead and TileRecord of csrc/cuda/kernels/table.h.
_HEAD = np.dtype([("used", "<u4"), ("foreign", "<u4")])
_TILE = np.dtype(
    [("hash", "<u8"), ("offset", "<u4"), ("count", "<u2"), ("escapes", "<u2"), ("state", "<u4"), ("reserved", "<u4")]
)
_WORD = 4
UNTOUCHED, WRITTEN, UNDONE = 0, 1, 2


class DeviceRecord:
    """Hashes and states of a rectangle's tiles and, if asked for, what corrects an undo by its terms.

    Written by launches in the order of their stream, so sizes are what is held, not what is needed; whatever reads
    the device's memory waits for it. For launches on its own device only. Raises torch.OutOfMemoryError.
    """

    def __init__(self, rows: int, cols: int, dtype: str, corrections: bool, device: torch.device) -> None:
        self.rows, self.cols, self.dtype, self.device = rows, cols, dtype, device
        if dtype not in _ITEM_NBYTES:
            raise ArgumentError(f"[step] a record of {dtype}, expected one of {', '.join(_ITEM_NBYTES)}")
        self.backup_nbytes = rows * cols * _ITEM_NBYTES[dtype]
        wanted = max(self.backup_nbytes // PART_OF_WEIGHT, LEAST_NBYTES) if corrections else 0
        self.tiles, self.head_nbytes, self.capacity_nbytes = _C.cuda_record_layout(rows, cols, dtype, wanted)
        self.has_corrections = corrections
        self._memory = from_torch.allocate((self.head_nbytes + self.capacity_nbytes,), torch.uint8, device)
        stream = from_torch.current_stream(device)
        _C.cuda_put_zeros(device.index, stream, self.head_nbytes, self.address)

    @property
    def address(self) -> int:
        """Where it begins in device memory."""
        return self._memory.data_ptr()

    @property
    def nbytes(self) -> int:
        """Device memory that it holds."""
        return self._memory.nbytes

    @property
    def tile_rows(self) -> int:
        return min(64, self.rows)

    @property
    def tile_cols(self) -> int:
        return min(64 if self.dtype == "F64" else 128, self.cols)

    @property
    def written(self) -> int:
        """How many tiles hold what its terms made. Waits for the device."""
        return int(np.count_nonzero(self.tile_records()["state"] == WRITTEN))

    @property
    def foreign_tile(self) -> tuple[int, int] | None:
        """First row and column of a tile that was found to hold something else. Waits for the device."""
        found = int(self._read(_HEAD.itemsize).view(_HEAD)[0]["foreign"])
        if found == 0:
            return None
        row, col = divmod(found - 1, -(-self.cols // self.tile_cols))
        return row * self.tile_rows, col * self.tile_cols

    def forget_foreign_tile(self) -> None:
        """So that the next one is told."""
        stream = from_torch.current_stream(self.device)
        _C.cuda_put_zeros(self.device.index, stream, _WORD, self.address + _WORD)

    def forget_corrections(self) -> None:
        """Frees them; hashes and states stay."""
        if self.has_corrections:
            shrink([(self, 0)])
            self.has_corrections = False

    def require_form(self, rows: int, cols: int, dtype: str) -> None:
        """Raises ArgumentError when it was made for another rectangle."""
        if (rows, cols, dtype) != (self.rows, self.cols, self.dtype):
            raise ArgumentError(
                f"[step] a record of {self.rows} x {self.cols} {self.dtype}, expected {rows} x {cols} {dtype}"
            )

    def used_now(self, device: torch.device) -> None:
        """Says that the current stream works with it. Raises ArgumentError for another device than its own."""
        if device != self.device:
            raise ArgumentError(f"[step] a record of {self.device} for a weight on {device}")
        from_torch.used_now(self._memory, device)

    def tile_records(self) -> npt.NDArray[np.void]:
        """The tiles' entries. Waits for the device."""
        return self._read(self.head_nbytes)[_HEAD.itemsize :].view(_TILE)

    def _read(self, nbytes: int) -> npt.NDArray[np.uint8]:
        stream = from_torch.current_stream(self.device)
        return np.frombuffer(_C.CudaReadBack(self.device.index, stream, self.address, nbytes).wait(), np.uint8)

    def moved_to(self, memory: torch.Tensor) -> None:
        """Takes memory that what is kept has been copied to, corrections as far as it goes."""
        self._memory = memory
        self.capacity_nbytes = memory.nbytes - self.head_nbytes


def put_used_words(records: Sequence[DeviceRecord], address: int) -> None:
    """Has the device copy how many words each of its records needs for corrections, one u32 after the other."""
    addresses = range(address, address + len(records) * _WORD, _WORD)
    pairs = zip(addresses, records, strict=True)
    launches.copy(records[0].device, [_bytes(to, record.address, _WORD) for to, record in pairs])


def shrink_to_words(records: Sequence[DeviceRecord], used: Iterable[int]) -> None:
    """:func:`shrink` by what :func:`put_used_words` told."""
    shrink([(record, _WORD * int(words)) for record, words in zip(records, used, strict=True)])


def shrink(records: Sequence[tuple[DeviceRecord, int]]) -> None:
    """Moves records of one device to memory for so many bytes of corrections, where that is less than they have."""
    smaller = [(record, record.head_nbytes + n) for record, n in records if n < record.capacity_nbytes]
    if not smaller:
        return
    device = smaller[0][0].device
    blocks = [from_torch.allocate((nbytes,), torch.uint8, device) for _, nbytes in smaller]
    pairs = list(zip(smaller, blocks, strict=True))
    launches.copy(device, [_bytes(to.data_ptr(), record.address, nbytes) for (record, nbytes), to in pairs])
    for (record, _), block in pairs:
        record.moved_to(block)


def _bytes(to: int, source: int, nbytes: int) -> native_types.Rect:
    return to, source, 1, nbytes, 1, 1, 1, 1, 1
