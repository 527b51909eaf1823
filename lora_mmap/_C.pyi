"""The native core. Addresses are integers, strides are in elements unless a name says nbytes."""

from collections.abc import Sequence
from typing import TypeAlias

from typing_extensions import Buffer

# (down, down_dtype, down_row_stride, up, up_dtype, up_row_stride, rank, scale, row_map or 0, col_map or 0)
Term: TypeAlias = tuple[int, str, int, int, str, int, int, float, int, int]
# (weight, base, rows, cols, weight strides (row, col), base strides (row, col), dtype, terms)
Job: TypeAlias = tuple[int, int, int, int, int, int, int, int, str, list[Term]]
