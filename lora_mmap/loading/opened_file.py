"""A safetensors file that is open for loading: where its bytes come from, and what says that they are still there."""

from __future__ import annotations

import errno
import os

from .. import _C
from ..errors import TensorError, UnreadableFileError
from ..header_lists import HeaderLists
from ..sharing import ForkSafeLock
from .arguments import require_backend

# Where every read is a round trip, more of them in flight help even on few cores.
_REMOTE_THREADS = 8
_LOCAL_THREADS = 4


class OpenedFile(HeaderLists):
    """Descriptor, header and, for the mmap backend, the one mapping that all tensors share.

    Dropping the last reference releases the descriptor; tensors that were made keep the mapping.
    """

    def __init__(self, path: str, backend: str) -> None:
        self.path = path
        self.file = open_file(path)
        self.header = self.file.read_header()
        self.lenient = backend == "auto"  # slices take what torch takes, whatever backend is chosen
        self._mapping: _C.Mapping | None = None
        self._lock = ForkSafeLock()
        self.is_remote = self.file.is_remote
        self.backend = self._choose() if backend == "auto" else backend

    @property
    def mapping(self) -> _C.Mapping:
        if self._mapping is None:
            with self._lock.native:
                if self._mapping is None:
                    self._mapping = self.file.map()
        return self._mapping

    def _choose(self) -> str:
        """``pread`` on network, FUSE and 9p file systems, ``mmap`` elsewhere; ``LORA_MMAP_BACKEND`` overrides both.

        A remote file that does not fit the memory at hand is mapped all the same: its pages can be dropped again.
        """
        override = require_backend(os.environ.get("LORA_MMAP_BACKEND", "auto"))
        if override != "auto":
            return override
        return "pread" if self.is_remote and self.file.size <= _available_nbytes() else "mmap"

    def index(self, name: str) -> int:
        try:
            return self.header.index(name)
        except KeyError:
            raise TensorError(f"File does not contain tensor {name}") from None

    def read(self, targets: list[tuple[int, int, int]]) -> None:
        """Reads each (offset, nbytes, address). Raises ReadError where the file is not what it was any more."""
        threads = _REMOTE_THREADS if self.is_remote else min(_LOCAL_THREADS, os.cpu_count() or 1)
        _C.read_ranges([(self.file, self.header, *target) for target in targets], threads)
        self.file.check_unchanged(self.header)


def open_file(path: str) -> _C.File:
    """Opens a file with safetensors' exceptions: any failure is a FileNotFoundError, a directory an OSError.

    As with safetensors, their first argument is the text: ComfyUI looks for words in it.
    """
    try:
        return _C.File(path)
    except UnicodeError:
        raise
    except (ValueError, OSError) as error:  # a ValueError: there is a NUL in the path
        if isinstance(error, OSError) and error.errno in (None, errno.EISDIR, errno.EINVAL):  # a FIFO, a device
            refused = type(error)(error.strerror or str(error))
            refused.errno = error.errno
            raise refused from None
        kind = UnreadableFileError if isinstance(error, PermissionError) else FileNotFoundError
        why = "" if type(error) is FileNotFoundError else f" ({getattr(error, 'strerror', None) or error})"
        found = kind(f"No such file or directory: {path}{why}")
        found.errno = getattr(error, "errno", None)
        raise found from (None if type(error) is FileNotFoundError else error)


def _available_nbytes() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return 2**63
