"""Models that nobody here has a class for, from the names and shapes of their parameters."""

from collections.abc import Mapping

import torch
from torch import nn


def stand_in(parameters: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A tree of modules with parameters on the meta device: {"blocks.0.attn.qkv.weight": (192, 64)}."""
    root = nn.Module()
    for name, shape in parameters.items():
        path, _, own = name.rpartition(".")
        module = root
        for level in path.split(".") if path else ():
            if level not in module._modules:
                module.add_module(level, nn.Module())
            module = module._modules[level]
        module.register_parameter(own, nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False))
    return root
