"""The tuples that cross the border to the native core. Addresses are integers, strides are in elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
    from . import _C

# (down, down_dtype, down_row_stride, up, up_dtype, up_row_stride, rank, scale, row_map or 0, col_map or 0)
Term: TypeAlias = tuple[int, str, int, int, str, int, int, float, int, int]
# (weight, base, rows, cols, weight row and col stride, base row and col stride, dtype, terms)
Job: TypeAlias = tuple[int, int, int, int, int, int, int, int, str, list[Term]]
# (dst, src, rows, cols, dst row and col stride, src row and col stride, element_nbytes)
Rect: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
# (file or None, its header or None, offset, address of the bytes where there is no file, nbytes, device address)
Upload: TypeAlias = tuple[Union["_C.File", None], Union["_C.Header", None], int, int, int, int]
# (down, up, alpha or -1, rows, cols, rank): tensor indices and the matrix that the factors make
PlainPair: TypeAlias = tuple[int, int, int, int, int, int]
# (rule, alternative, modules: one per path of the alternative)
Choice: TypeAlias = tuple[int, int, tuple[int, ...]]
# (start; the modules that all have the name itself; the ways in which rules place it). Neither: absent.
Resolution: TypeAlias = tuple[int, tuple[int, ...], tuple[Choice, ...]]
# (stem, infix, ((offset, prefix or -1), ...), ((suffix, tensor), ...), (rule, ...))
Group: TypeAlias = tuple[str, str, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...], tuple[int, ...]]
