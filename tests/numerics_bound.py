"""The arithmetic contract as a bound: how far a fused weight may lie from the same sum in float64.

|W' - ref| <= ulp(W') + R * eps * sum |terms|, elementwise, with eps = 2^-24 (float64 weights: 2^-53) and R the rank of
all adapters together and 2 for each: its scale is rounded, and the scale's product with the up factor.
"""

import numpy as np
import torch

_PRECISION = {
    torch.float16: (11, -24),
    torch.bfloat16: (8, -133),
    torch.float32: (24, -149),
    torch.float64: (53, -1074),
}


def ulp(values):
    """The spacing of ``values``' dtype at each of them, as float64."""
    precision, smallest = _PRECISION[values.dtype]
    exponent = torch.frexp(values.double()).exponent
    spacing = np.ldexp(1.0, (exponent - precision).clamp(min=smallest).numpy())
    return torch.as_tensor(spacing, dtype=torch.float64)


def reference(pristine, terms):
    """(W0 + sum of scale * up @ down, sum of the terms' magnitudes, R), the first two in float64.

    ``terms`` are (down, up, scale); shapes are flattened to matrices, as convolutions are.
    """
    base = pristine.detach().double()
    total, magnitude, roundings = base.clone(), torch.zeros_like(base), 0
    for down, up, scale in terms:
        a, b = down.detach().double().flatten(1), up.detach().double().flatten(1)
        total += (scale * (b @ a)).reshape(base.shape)
        magnitude += (abs(scale) * (b.abs() @ a.abs())).reshape(base.shape)
        roundings += a.shape[0] + 2
    return total, magnitude, roundings


def worst_excess(fused, pristine, terms):
    """The largest |W' - ref| - bound; at most 0 when the contract holds."""
    expected, magnitude, roundings = reference(pristine, terms)
    epsilon = 2.0 ** (-53 if fused.dtype == torch.float64 else -24)
    bound = ulp(fused.detach()) + roundings * epsilon * magnitude
    return ((fused.detach().double() - expected).abs() - bound).max().item()


def assert_one_rounding(fused, pristine, terms, name="weight"):
    """Fails where ``fused`` is further from the float64 reference than one rounding and the accumulation allow."""
    assert fused.dtype == pristine.dtype
    excess = worst_excess(fused, pristine, terms)
    assert excess <= 0, f"{name}: beyond the bound by {excess}"


def relative_error(fused, pristine, terms):
    """||W' - ref|| / ||ref||."""
    expected = reference(pristine, terms)[0]
    return ((fused.detach().double() - expected).norm() / expected.norm()).item()
