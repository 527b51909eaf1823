"""A safetensors file that is open for loading: where its bytes come from, and what says that they are still there."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from .. import _C
from ..errors import ArgumentError, LoaderArgumentError, TensorError, UnreadableFileError

BACKENDS = ("auto", "mmap", "pread")

# Up to here one read is cheaper than making a mapping and taking its page faults (python -m bench load).
_SMALL_NBYTES = 64 << 10
# Where every read is a round trip, more of them in flight help even on few cores.
_REMOTE_THREADS = 8
_LOCAL_THREADS = 4


class OpenedFile:
    """Descriptor, header and, for the mmap backend, the one mapping that all tensors share.

    Dropping the last reference releases the descriptor; tensors that were made keep the mapping.
    """

    def __init__(self, path: str, backend: str) -> None:
        self.path = path
        self.file = open_file(path)
        self.header = self.file.read_header()
        self.lenient = backend == "auto"  # slices take what torch takes, whatever backend is chosen
        self.backend = choose_backend(self.file) if backend == "auto" else backend

    @cached_property
    def names(self) -> list[str]:
        """In the order of the data."""
        return self.header.names()

    @cached_property
    def dtypes(self) -> list[str]:
        return self.header.dtypes()

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        return self.header.shapes()

    @cached_property
    def offsets(self) -> list[int]:
        return self.header.offsets()

    @cached_property
    def nbytes(self) -> list[int]:
        return self.header.nbytes()

    @cached_property
    def mapping(self) -> _C.Mapping:
        return self.file.map()

    def index(self, name: str) -> int:
        try:
            return self.header.index(name)
        except KeyError:
            raise TensorError(f"File does not contain tensor {name}") from None

    def read(self, targets: list[tuple[int, int, int]]) -> None:
        """Reads each (offset, nbytes, address). Raises ReadError where the file is not what it was any more."""
        threads = _REMOTE_THREADS if self.file.is_remote else min(_LOCAL_THREADS, os.cpu_count() or 1)
        _C.read_ranges([(self.file, self.header, *target) for target in targets], threads)
        self.file.check_unchanged(self.header)


def open_file(path: str) -> _C.File:
    """Opens a file with safetensors' exceptions: any failure is a FileNotFoundError, a directory an OSError."""
    try:
        return _C.File(path)
    except IsADirectoryError:
        raise
    except (ArgumentError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (None, 22):  # a FIFO, a device
            raise
        kind = UnreadableFileError if isinstance(error, PermissionError) else FileNotFoundError
        why = "" if type(error) is FileNotFoundError else f" ({getattr(error, 'strerror', None) or error})"
        found = kind(f"No such file or directory: {path}{why}")
        found.errno = getattr(error, "errno", None)
        raise found from (None if type(error) is FileNotFoundError else error)


def require_backend(backend: Any) -> str:
    """Raises LoaderArgumentError (a SafetensorError) for a name that is none, TypeError for anything but a str."""
    if not isinstance(backend, str):
        raise TypeError(f"argument 'backend': {instance_text(backend)} is not an instance of 'str'")
    if backend not in BACKENDS:
        raise LoaderArgumentError(
            f'backend "{backend}" is invalid (expected one of: {", ".join(f"{name!r}" for name in BACKENDS)})'.replace(
                "'", '"'
            )
        )
    return backend


def choose_backend(file: _C.File) -> str:
    """What ``auto`` means: ``pread`` on network, FUSE and 9p file systems and for small files, ``mmap`` otherwise.

    ``LORA_MMAP_BACKEND`` overrides it. A remote file that would not fit the memory at hand is mapped all the same.
    """
    override = require_backend(os.environ.get("LORA_MMAP_BACKEND", "auto"))
    if override != "auto":
        return override
    if file.size <= _SMALL_NBYTES:
        return "pread"
    return "pread" if file.is_remote and file.size <= _available_nbytes() else "mmap"


def _available_nbytes() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return 2**63


def instance_text(value: Any) -> str:
    """How safetensors' TypeErrors speak of a value."""
    return "'None'" if value is None else f"'{type(value).__name__}' object"
