"""Adapters for linears that get a side branch, and what they have to add to a forward."""

from typing import NamedTuple

import torch
from adapter_tensors import factors, keyed, write


class Made(NamedTuple):
    """A file, and its factors by module: (down, up, scale)."""

    path: object
    factors: dict


def make(folder, shapes, seed, rank, alpha, dtype=torch.float32, size=0.1):
    """An adapter on the modules of ``shapes``, {name: (rows, cols)}."""
    pairs = {
        name: factors(*shape, rank, 100 * seed + number, dtype, size)
        for number, (name, shape) in enumerate(shapes.items())
    }
    path = write(folder / f"{seed}.safetensors", keyed(pairs, alpha))
    scale = 1.0 if alpha is None else alpha / rank
    return Made(path, {name: (down, up, scale) for name, (down, up) in pairs.items()})


def three(folder, shapes):
    """With different ranks, alphas and dtypes; the last one leaves the first module alone."""
    return [
        make(folder, shapes, 1, rank=4, alpha=2.0, dtype=torch.float16),
        make(folder, shapes, 2, rank=7, alpha=None, dtype=torch.float32),
        make(folder, dict(list(shapes.items())[1:]), 3, rank=16, alpha=24.0, dtype=torch.bfloat16),
    ]


def added(entries, name, x):
    """What (Made, strength) pairs add for an input of a module: the sum, and the sum of the absolute values of all its
    products, in float64."""
    x = x.double()
    total = size = torch.zeros(1, dtype=torch.float64)
    for made, strength in entries:
        if name in made.factors:
            down, up, scale = made.factors[name]
            total = total + strength * scale * (x @ down.double().t() @ up.double().t())
            size = size + abs(strength) * scale * (x.abs() @ down.double().abs().t() @ up.double().abs().t())
    return total, size


def tolerance(size, result, factors, dtype, inner):
    """How far a branch whose factors are kept in one dtype and that computes in another may be off: down and up are
    rounded once to each, the inner products and the outer ones once, sums of ``inner`` products are made in float32,
    and what comes out is rounded when it is added."""
    kept, computed = (torch.finfo(one).eps / 2 for one in (factors, dtype))
    rounded = kept if factors == dtype else kept + computed
    return (2.1 * rounded + 2.1 * computed + inner * 2.0**-24) * size + 1.1 * computed * (result.double().abs() + size)


def assert_adds(before, now, entries, inputs, factors):
    """Every output of ``now`` is that of ``before`` and what the entries add; ``inputs`` and the dtypes of ``factors``
    by module."""
    for name, base in before.items():
        x = inputs[name]
        total, size = added(entries, name, x)
        off = (now[name].double() - base.double() - total).abs()
        allowed = tolerance(size, now[name], factors[name], x.dtype, inner=x.shape[-1] + 32)
        assert now[name].dtype == base.dtype
        assert (off <= allowed).all(), (name, float((off / allowed).max()))
