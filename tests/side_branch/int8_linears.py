"""Quantised linears of our own, importable and so to be pickled, and a model with some of them."""

import torch
from torch import nn
from torch.nn import functional

SHAPES = {"first": (70, 48), "inner.second": (32, 70), "inner.third": (16, 32)}


class Int8Linear(nn.Module):
    """An int8 weight with a scale for each row, in float32 or whatever ``dtype`` says."""

    def __init__(self, in_features, out_features, bias=True, dtype=torch.float32, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.in_features, self.out_features = in_features, out_features
        weight = torch.randint(-127, 128, (out_features, in_features), generator=generator, dtype=torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        scale = (1 + torch.rand(out_features, 1, generator=generator)) / (100 * in_features**0.5)
        self.register_buffer("scale", scale.to(dtype))
        self.bias = nn.Parameter(torch.randn(out_features, generator=generator).to(dtype)) if bias else None
        self.requires_grad_(False)

    def forward(self, input):
        return functional.linear(input, self.weight.to(self.scale.dtype) * self.scale, self.bias)


class Model(nn.Module):
    """Two Int8Linears with and without a bias, and a dense layer."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.first = Int8Linear(48, 70, dtype=dtype, seed=1)
        self.inner = nn.Module()
        self.inner.second = Int8Linear(70, 32, bias=False, dtype=dtype, seed=2)
        with torch.random.fork_rng([]):
            torch.manual_seed(3)
            self.inner.third = nn.Linear(32, 16, dtype=dtype).requires_grad_(False)

    def forward(self, x):
        """x [..., 48] -> [..., 16]."""
        hidden = functional.gelu(self.first(x))
        return self.inner.third(self.inner.second(input=hidden).relu())


def inputs(dtype=torch.float32):
    return torch.randn(4, 48, generator=torch.Generator().manual_seed(11)).to(dtype)


def in_float64(model, entries, x):
    """What ``model``, which has no adapters in it, computes with the entries in its weights, in float64."""

    def linear(name, x):
        module = model.get_submodule(name)
        weight = module.weight.double() * (module.scale.double() if hasattr(module, "scale") else 1)
        for made, strength in entries:
            if name in made.factors:
                down, up, scale = made.factors[name]
                weight = weight + strength * scale * (up.double() @ down.double())
        return functional.linear(x, weight, None if module.bias is None else module.bias.double())

    hidden = functional.gelu(linear("first", x.double()))
    return linear("inner.third", linear("inner.second", hidden).relu())
