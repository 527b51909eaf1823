"""What the tensors of a dict are recognised as, with no model at hand."""

import torch

import lora_mmap
from lora_mmap.pairing import pair_up

# What is fused; all other algorithms are told apart, and reported.
FUSED = {"lora", "tucker", "embedding", "lora_bias", "dora", "loha", "lokr", "ia3", "full", "norm", "modulation", "set"}


def groups_of(tensors):
    """{module path: what pair_up makes of it} of a dict of tensors, or of {key: shape} filled with ones."""
    tensors = {key: value if isinstance(value, torch.Tensor) else torch.ones(value) for key, value in tensors.items()}
    with lora_mmap.open_adapter(tensors) as adapter:
        return {group.stem: found for group, found in zip(adapter.groups, pair_up(adapter), strict=True)}


def only(tensors):
    """The one group that the tensors of one module make."""
    ((_, found),) = groups_of(tensors).items()
    return found


def module(**shapes):
    """Tensors of a module ``m`` by the ending of their keys, ``__`` for a dot: ``module(lora_A__weight=(2, 8))``."""
    return {f"m.{ending.replace('__', '.')}": shape for ending, shape in shapes.items()}
