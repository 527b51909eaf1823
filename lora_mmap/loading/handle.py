"""``safe_open``: an open safetensors file, in the shape of the safetensors package's class of that name."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import safetensors

from ..errors import ClosedError
from .arguments import require_backend, require_filename, require_instance
from .devices import parse_device, refuse_device
from .numpy_reader import NumpyReader
from .opened_file import OpenedFile
from .torch_reader import TorchReader

_TORCH = frozenset({"pt", "torch", "pytorch"})
_NUMPY = frozenset({"np", "numpy"})
# Their own, even where this module is loaded while their name is routed to us: see lora_mmap.routing.
_THEIR_SAFE_OPEN: Any = getattr(safetensors.safe_open, "__wrapped__", safetensors.safe_open)


class safe_open:
    """Opens a safetensors file and gives tensors as they are asked for.

    ``filename`` is a str or an ``os.PathLike`` of one; ``framework`` is ``pt``, ``torch``, ``pytorch``, ``np`` or
    ``numpy`` (others are handed to safetensors itself); ``device`` is what safetensors takes, or a ``torch.device``.

    ``backend``: ``mmap`` gives CPU tensors that are views of one copy-on-write mapping: nothing is read until a page
    is touched, and a touch after somebody truncated the file kills the process, as it does with safetensors.
    ``pread`` reads into memory of the tensor's own, which no one can take away. ``auto`` takes ``pread`` on network,
    FUSE and 9p file systems, ``mmap`` otherwise; ``LORA_MMAP_BACKEND`` overrides what it takes.

    A context manager. Safe to share between threads and with forked processes. Tensors and slices outlive the handle
    and the path.

    Raises FileNotFoundError and OSError where the file cannot be opened; HeaderError where it breaks a rule of the
    format; ReadError where it is truncated or rewritten while it is open; LoaderArgumentError for a framework, device
    or backend that there is not. The last three are ``safetensors.SafetensorError``.
    """

    __slots__ = ("__weakref__", "_reader")

    _reader: TorchReader | NumpyReader | None

    def __new__(
        cls, filename: str | os.PathLike[str], framework: str, device: Any = "cpu", *, backend: str = "auto"
    ) -> Any:
        path = require_filename(filename)
        if require_instance("framework", framework, str) not in _TORCH | _NUMPY:
            named = {} if backend == "auto" else {"backend": backend}  # older safetensors have none
            return _THEIR_SAFE_OPEN(path, framework, device=device, **named)
        target = parse_device(device)
        opened = OpenedFile(path, require_backend(backend))
        if framework in _NUMPY:
            refuse_device(target)
        self = super().__new__(cls)
        self._reader = TorchReader(opened, target) if framework in _TORCH else NumpyReader(opened)
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._open().opened.names)

    def offset_keys(self) -> list[str]:
        """The names of the tensors, in the order of their data in the file."""
        return list(self._open().opened.names)

    def metadata(self) -> dict[str, str] | None:
        """The header's ``__metadata__``, None where the file has none."""
        return self._open().opened.header.metadata

    def get_tensor(self, name: str) -> Any:
        """One tensor, as ``framework`` and ``device`` say. Raises TensorError where the file has none of that name."""
        reader = self._open()
        return reader.tensor(reader.opened.index(require_instance("name", name, str)))

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, in the order of their data in the file."""
        return self._open().tensors()

    def get_slice(self, name: str) -> TensorSlice:
        """A handle on one tensor that reads only what it is indexed with."""
        reader = self._open()
        return TensorSlice(reader, reader.opened.index(require_instance("name", name, str)))

    def _open(self) -> TorchReader | NumpyReader:
        reader = self._reader
        if reader is None:
            raise ClosedError("File is closed")
        return reader


class TensorSlice:
    """One tensor of an open file, not read yet. Index it to read. Keeps the file open while it lives."""

    __slots__ = ("_index", "_reader")

    def __init__(self, reader: TorchReader | NumpyReader, index: int) -> None:
        self._reader = reader
        self._index = index

    def get_shape(self) -> list[int]:
        return list(self._reader.opened.shapes[self._index])

    def get_dtype(self) -> str:
        """safetensors' name of the element type, such as ``BF16``."""
        return self._reader.opened.dtypes[self._index]

    def __getitem__(self, item: Any) -> Any:
        return self._reader.sliced(self._index, item)
