"""Models that nobody here has a class for: trees of modules under the names of their parameters."""

from collections.abc import Mapping

import torch
from torch import nn


def holding(parameters: Mapping[str, torch.Tensor]) -> nn.Module:
    """A model whose parameters are these tensors: {"blocks.0.attn.qkv.weight": tensor}."""
    root = nn.Module()
    for name, value in parameters.items():
        path, _, own = name.rpartition(".")
        module = root
        for level in path.split(".") if path else ():
            if level not in module._modules:
                module.add_module(level, nn.Module())
            module = module._modules[level]
        module.register_parameter(own, nn.Parameter(value, requires_grad=False))
    return root


def stand_in(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The same on the meta device, of parameters of these shapes."""
    return holding({name: torch.empty(*shape, device="meta") for name, shape in shapes.items()})
