"""What a header says of its tensors, as lists by tensor index, made when somebody asks."""

from __future__ import annotations

from . import _C
from .sharing import lazy


class HeaderLists:
    """In the order of the data in the file; dtypes are safetensors' names, offsets and sizes are bytes of the file."""

    header: _C.Header

    @lazy
    def names(self) -> list[str]:
        return self.header.names()

    @lazy
    def dtypes(self) -> list[str]:
        return self.header.dtypes()

    @lazy
    def shapes(self) -> list[tuple[int, ...]]:
        return self.header.shapes()

    @lazy
    def nbytes(self) -> list[int]:
        return self.header.nbytes()

    @lazy
    def offsets(self) -> list[int]:
        return self.header.offsets()
