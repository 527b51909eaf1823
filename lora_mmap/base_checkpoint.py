"""The checkpoint that a model was loaded from, as the source of pristine bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from . import _C, native_types
from .base_files import checkpoint_files
from .base_names import Prefix, common_prefix
from .errors import ArgumentError, HeaderError
from .geometry import Geometry
from .lowering.jobs import Place
from .sharing import ForkSafeLock, lazy
from .tensor_source import FileTensors

_CONVERTIBLE = frozenset({"F16", "BF16", "F32"})


class BaseTensor:
    """One tensor of an open checkpoint, that may have the values of a weight. Equal to another of the same bytes."""

    __slots__ = ("_index", "_source")

    def __init__(self, source: FileTensors, index: int) -> None:
        self._source = source
        self._index = index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseTensor) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        """File and place in it; a file that is written to between two openings is another."""
        return (*self.file.identity(), self.offset, self.dtype, self.shape)

    @property
    def file(self) -> _C.File:
        return self._source.file

    @property
    def header(self) -> _C.Header:
        return self._source.header

    @property
    def name(self) -> str:
        """In the file."""
        return self._source.names[self._index]

    @property
    def dtype(self) -> str:
        return self._source.dtypes[self._index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._source.shapes[self._index]

    @property
    def offset(self) -> int:
        """Bytes from the start of the file."""
        return self._source.offsets[self._index]

    def check_unchanged(self) -> None:
        """Raises ReadError when the file is not what it was when it was opened, ClosedError when it was closed."""
        self.file.check_unchanged(self.header)

    def fits(self, geometry: Geometry) -> bool:
        """True where a weight of this form can have been loaded from it."""
        if self.shape != tuple(geometry.shape):
            return False
        return self.dtype == geometry.dtype or {self.dtype, geometry.dtype} <= _CONVERTIBLE

    def values(self, geometry: Geometry, to: Place) -> native_types.FileValues:
        """All of it beside memory laid out as ``to`` says: the weight itself, or a copy of it. Good for as long as
        ``geometry`` lives."""
        row_stride, col_stride = (1, geometry.rows) if geometry.transposed else (geometry.cols, 1)
        columns = 0 if geometry.column_map is None else geometry.column_map.ctypes.data
        place = (to.address, geometry.rows, geometry.cols, to.row_stride, to.col_stride, geometry.dtype)
        return (self.file, self.header, self.offset, self.dtype, row_stride, col_stride, columns, *place)


class BaseCheckpoint:
    """A safetensors file, or the shards of an index, each opened when a name in it is first looked for. Thread-safe."""

    def __init__(self, source: str | os.PathLike[str]) -> None:
        files = checkpoint_files(source)
        self.paths = files.paths
        self._shard_of = files.shard_of
        self._opened: dict[int, FileTensors] = {}
        self._lock = ForkSafeLock()
        self._prefix = Prefix()
        if self._shard_of is None:
            self._open(0)

    @classmethod
    def open(cls, source: str | os.PathLike[str]) -> BaseCheckpoint:
        """Opens a file, an index of shards, or a folder with one of them.

        Raises FileNotFoundError, PermissionError and other OSErrors; ArgumentError for what is no such thing, pickles
        too; HeaderError for a file that is no valid safetensors file.
        """
        return cls(source)

    @lazy
    def names(self) -> frozenset[str]:
        """Of all tensors."""
        return frozenset(self._open(0).names if self._shard_of is None else self._shard_of)

    def learn_names(self, model_names: Iterable[str]) -> int:
        """Finds the one prefix that the names in the file have and those in the model lack, or the reverse. Returns how
        many of the model's names there then are in the file."""
        names = frozenset(model_names)
        self._prefix = common_prefix(names, self.names)
        return sum(any(name in self.names for name in self._in_file(one)) for one in names)

    def find(self, names: Sequence[str], geometry: Geometry) -> BaseTensor | None:
        """The tensor that a parameter with these names in the model (several where it is tied) may have come from: by
        name, shape and dtype. The name itself comes before the one with the learned prefix."""
        in_file = [self._in_file(name) for name in names]
        for candidate in (*(own for own, _ in in_file), *(other for _, other in in_file)):
            if candidate is not None and candidate in self.names:
                found = self._tensor(candidate)
                if found.fits(geometry):
                    return found
        return None

    def check_unchanged(self) -> None:
        """Raises ReadError when a file that was opened is not what it was then."""
        for source in list(self._opened.values()):
            source.file.check_unchanged(source.header)

    def close(self) -> None:
        """Its tensors can no longer be read then."""
        for source in list(self._opened.values()):
            source.close()

    def __enter__(self) -> BaseCheckpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_file(self, name: str) -> tuple[str, str | None]:
        return name, self._prefix.apply(name)

    def _tensor(self, name: str) -> BaseTensor:
        number = 0 if self._shard_of is None else self._shard_of[name]
        source = self._open(number)
        try:
            return BaseTensor(source, source.header.index(name))
        except KeyError:
            raise ArgumentError(
                f"[compose] base {self.paths[number]} has no tensor '{name}', which the index beside it says it has"
            ) from None

    def _open(self, number: int) -> FileTensors:
        with self._lock.native:
            if number not in self._opened:
                self._opened[number] = _open_file(os.fspath(self.paths[number]))
            return self._opened[number]


def _open_file(path: str) -> FileTensors:
    try:
        return FileTensors(path)
    except HeaderError as error:
        raise HeaderError(f"[compose] base {path} is no valid safetensors file: {error}") from None
    except OSError as error:
        if error.errno is None:  # ours
            raise
        raise type(error)(error.errno, f"[compose] base: {error.strerror}", path) from None
