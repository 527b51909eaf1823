"""What a low-rank branch adds, against float64, and how far off 16-bit factors may be.

Both factors are rounded once: with a unit roundoff u each element of ``s * B @ A @ x`` is off by at most
``((1 + u)^2 - 1) * |s * B| @ |A| @ |x|``, whatever is done in float64 after that. fp32 arithmetic on the way to a
factor (its scale, products of factors) adds a few units of 2^-24.
"""

import torch
from nunchaku_files import Deltas, Factors
from quantised_state import quantised

UNIT = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def slack(dtype):
    return (1 + UNIT[dtype]) ** 2 - 1 + 2.0**-20


def magnitudes(model, deltas):
    """As ``deltas``, of the absolute values of all factors."""
    parts = {}
    for module in deltas:
        for part, own in deltas.parts(module).items():
            tensors = {key: value.abs() for key, value in own.tensors.items()}
            parts[part] = Factors(tensors, None if own.alpha is None else abs(own.alpha), own.divisor)
    return Deltas(model, parts)


def inputs(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(3, module.in_features, generator=generator, dtype=torch.float64)
        for name, module in quantised(model).items()
    }


def outputs(model, given):
    """Of every quantised layer, float64."""
    return {name: module(given[name]) for name, module in quantised(model).items()}


def require_sum(model, base, given, terms, dtype):
    """Every layer gives what it gave before plus the sum of ``(strength, deltas)``."""
    bounds = [(abs(strength), magnitudes(model, deltas)) for strength, deltas in terms]
    after = outputs(model, given)
    assert base.keys() == after.keys()
    for name, x in given.items():
        expected, room = base[name].clone(), torch.zeros_like(base[name])
        for (strength, deltas), (size, bound) in zip(terms, bounds, strict=True):
            if name in deltas:
                expected += strength * x @ deltas[name].t()
                room += size * x.abs() @ bound[name].t()
        allowed = slack(dtype) * room + 1e-12 * expected.abs()
        worst = ((after[name] - expected).abs() - allowed).max().item()
        assert worst <= 0, f"{name}: off by {worst} more than rounding allows"
