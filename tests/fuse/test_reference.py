"""The reference's own fma against libm's."""

import numpy as np
from fusion_reference import fma32, libm_fmaf


def operands(rng, spread):
    return (rng.standard_normal(20000) * 2.0 ** rng.integers(-spread, spread, 20000)).astype(np.float32)


def test_fma32_is_libm_fmaf():
    rng = np.random.default_rng(7)
    for spread in (2, 20, 60, 74):
        a, b, c = (operands(rng, spread) for _ in range(3))
        assert (fma32(a, b, c).view(np.int32) == libm_fmaf(a, b, c).view(np.int32)).all()


def test_fma32_where_double_rounding_would_show():
    # a * b + c halfway between two floats but for a bit far below float64's last.
    a, b = np.float32([1 + 2**-12]), np.float32([1 + 2**-12])
    for tiny in (2.0**-80, -(2.0**-80), 2.0**-149):
        c = np.float32([tiny])
        assert fma32(a, b, c)[0] == libm_fmaf(a, b, c)[0]


def test_fma32_at_the_ends_of_the_range():
    big, small = np.float32([3e38, 2e-38, 1e-30, -3e38]), np.float32([1.5, 1e-3, 1e-14, 1.5])
    c = np.float32([1e38, -1e-45, 1e-45, -1e38])
    assert (fma32(big, small, c).view(np.int32) == libm_fmaf(big, small, c).view(np.int32)).all()
