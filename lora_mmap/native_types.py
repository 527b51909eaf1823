"""The tuples that cross the border to the native core. Addresses are integers, strides are in elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    from . import _C
    from .cuda.device_record import DeviceRecord

# (down, down_dtype, down_row_stride, down_col_stride, up, up_dtype, up_row_stride, up_col_stride, rank, row_map or 0,
# col_map or 0): up @ down, or, where rank is -1, the values at ``down`` themselves
Matrix: TypeAlias = tuple[int, str, int, int, int, str, int, int, int, int, int]
# a matrix's fields and the scale
PlainTerm: TypeAlias = tuple[int, str, int, int, int, str, int, int, int, int, int, float]
# those, what it is multiplied by element by element, DoRA's factors (a whole matrix), and the weight of what comes out
AnyTerm: TypeAlias = tuple[
    int,
    str,
    int,
    int,
    int,
    str,
    int,
    int,
    int,
    int,
    int,
    float,
    Matrix | Literal["base"] | None,
    Matrix | None,
    float,
]
Term: TypeAlias = PlainTerm | AnyTerm
# (weight, base, rows, cols, weight row and col stride, base row and col stride, dtype, terms)
Job: TypeAlias = tuple[int, int, int, int, int, int, int, int, str, list[Term]]
# What is kept of a rectangle of a weight, where the weight is
Record: TypeAlias = Union["_C.Record", "DeviceRecord"]
# (terms, record, address of the values that come before or instead of the sum or 0, their row and col stride)
Side: TypeAlias = tuple[list[Term], Record, int, int, int]
# (weight, rows, cols, row stride, col stride, dtype, what it holds, what it shall hold, (address, row and col stride)
# where the pristine values go instead of the weight)
Step: TypeAlias = tuple[int, int, int, int, int, str, Side | None, Side | None, tuple[int, int, int] | None]
# (a job with one term, by_columns, groups or 0, n_groups, magnitude, magnitude_dtype, magnitude_map or 0, out)
Gains: TypeAlias = tuple[Job, bool, int, int, int, str, int, int]
# (file, its header, offset, dtype in the file, row and col stride in the file, col_map or 0, address, rows, cols, row
# stride, col stride, dtype)
FileValues: TypeAlias = tuple["_C.File", "_C.Header", int, str, int, int, int, int, int, int, int, int, str]
# its fields and the record of the weight
FileRestore: TypeAlias = tuple["_C.File", "_C.Header", int, str, int, int, int, int, int, int, int, int, str, Record]
# (a job, whether its base counts, address of the record, bytes for its corrections, whether it has those)
DeviceLayer: TypeAlias = tuple[Job, bool, int, int, bool]
# (old terms, new terms, address and strides of where pristine values go): what _C.CudaLaunches.step takes
DeviceStep: TypeAlias = tuple[DeviceLayer | None, DeviceLayer | None, tuple[int, int, int] | None]
# (layout, address, feature_pitch, rank_pitch, dtype, features_begin, features_end, rank_begin, rank_end, factor or
# None, factor_dtype, feature_stride, rank_stride, scale, address of the feature map or 0): what _C.write_factors takes
FactorWrite: TypeAlias = tuple[
    Literal["down", "up", "plain"],
    int,
    int,
    int,
    str,
    int,
    int,
    int,
    int,
    int | None,
    str,
    int,
    int,
    float,
    int,
]
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
