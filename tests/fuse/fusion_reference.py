"""The arithmetic contract of fusion in numpy and torch, sharing no code with the kernels, and job tuples for them."""

import ctypes
import ctypes.util
from dataclasses import dataclass

import numpy as np
import torch

NAMES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
WEIGHTS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FACTORS = list(NAMES)
# (a float16 weight, what is added, whether the sum rounds to infinity)
EDGE_OF_FP16 = [
    (65504.0, 15.99, False),
    (65504.0, 16.0, True),
    (-65504.0, -16.0, True),
    (0.0, 65519.99, False),
    (0.0, 65520.0, True),
]
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

_libm = ctypes.CDLL(ctypes.util.find_library("m"))
_libm.fma.restype = ctypes.c_double
_libm.fma.argtypes = [ctypes.c_double] * 3
_libm.fmaf.restype = ctypes.c_float
_libm.fmaf.argtypes = [ctypes.c_float] * 3


def libm_fmaf(a, b, c):
    with np.errstate(all="ignore"):
        return np.frompyfunc(_libm.fmaf, 3, 1)(a, b, c).astype(np.float32)


def fma64(a, b, c):
    with np.errstate(all="ignore"):
        return np.frompyfunc(_libm.fma, 3, 1)(a, b, c).astype(np.float64)


def fma32(a, b, c):
    """Correctly rounded fp32 fma of fp32 arrays.

    The product is exact in float64. Its sum with c is rounded to odd there (Boldo and Melquiond, "Emulation of FMA and
    correctly rounded sums", 2008), after which rounding to fp32 is as if from the exact sum.
    """
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        addend = np.broadcast_to(c, product.shape).astype(np.float64)
        total = product + addend
        tail = total - product
        error = (product - (total - tail)) + (addend - tail)
        bits = total.view(np.int64)
        inexact = np.isfinite(total) & np.isfinite(error) & (error != 0) & (bits & 1 == 0)
        step = np.where((error > 0) == (total > 0), 1, -1)
        return np.where(inexact, bits + step, bits).view(np.float64).astype(np.float32)


@dataclass
class Term:
    down: torch.Tensor
    up: torch.Tensor
    scale: float
    row_map: torch.Tensor | None = None
    col_map: torch.Tensor | None = None

    def as_tuple(self):
        maps = [0 if m is None else m.data_ptr() for m in (self.row_map, self.col_map)]
        down = (self.down.data_ptr(), NAMES[self.down.dtype], *self.down.stride())
        up = (self.up.data_ptr(), NAMES[self.up.dtype], *self.up.stride())
        return (*down, *up, self.down.shape[0], *maps, self.scale)

    def added(self, acc, base, fma):
        """``acc`` with this term added; ``base`` are the pristine values, in the type of ``acc``."""
        up, down = self.factors(acc.dtype.type)
        for r in range(down.shape[0]):
            acc = fma(np.repeat(up[:, r : r + 1], acc.shape[1], 1), np.repeat(down[r : r + 1], acc.shape[0], 0), acc)
        return acc

    def factors(self, compute):
        """(B * s, A), maps applied, in the compute type."""
        down, up = (to_numpy(f, compute) for f in (self.down, self.up))
        if self.row_map is not None:
            up = up[self.row_map.numpy()]
        if self.col_map is not None:
            down = down[:, self.col_map.numpy()]
        with np.errstate(all="ignore"):
            return up * compute(self.scale), down


def to_numpy(tensor, compute):
    wide = torch.float64 if compute is np.float64 or tensor.dtype == torch.float64 else torch.float32
    with np.errstate(all="ignore"):
        return tensor.to(wide).numpy().astype(compute)


def bits(tensor):
    return tensor.contiguous().view(BITS[tensor.element_size()])


def expected(base, terms):
    """(the fused weight, whether it overflowed)."""
    compute = np.float64 if base.dtype == torch.float64 else np.float32
    fma = fma64 if compute is np.float64 else fma32
    acc = np.zeros(tuple(base.shape), compute)
    values = to_numpy(base, compute)
    for term in terms:
        acc = term.added(acc, values, fma)
    with np.errstate(all="ignore"):
        total = torch.from_numpy(values + acc)
    fused = total.to(base.dtype)
    finite = torch.isfinite(base)
    overflow = bool((finite & ~torch.isfinite(fused)).any())
    kept = torch.where(finite, bits(fused), bits(base))
    return kept.view(base.dtype), overflow


def job(weight, terms, base=None):
    base = weight if base is None else base
    strides = (*weight.stride(), *base.stride())
    return job_at(weight.data_ptr(), base.data_ptr(), weight.shape, strides, weight.dtype, terms)


def job_at(weight, base, shape, strides, dtype, terms):
    return (weight, base, *shape, *strides, NAMES[dtype], [t.as_tuple() for t in terms])


def random_tensor(generator, rows, cols, dtype, spread=1.0):
    values = torch.randn(rows, cols, generator=generator, dtype=torch.float64) * spread
    return values.to(torch.float32).to(dtype) if dtype.itemsize == 1 else values.to(dtype)


def random_term(generator, rows, cols, rank, dtype=torch.float16, up_dtype=None, scale=0.37):
    down = random_tensor(generator, rank, cols, dtype)
    up = random_tensor(generator, rows, rank, up_dtype or dtype, 0.3)
    return Term(down, up, scale)


def same_bits(actual, wanted):
    return torch.equal(bits(actual), bits(wanted))
