"""Pipelines that are nothing but their modules, and adapters for them."""

import torch
from adapter_tensors import factors
from torch import nn

SHAPES = {"unet": (3, 64), "text_encoder": (2, 48), "text_encoder_2": (2, 32)}


class Blocks(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(count))


class Pipeline:
    """As diffusers' pipelines have them: modules as attributes."""

    def __init__(self, dtype=torch.bfloat16, **shapes):
        torch.manual_seed(0)
        for name, (count, width) in (shapes or SHAPES).items():
            setattr(self, name, Blocks(count, width).to(dtype))

    @property
    def modules(self):
        return {name: module for name, module in vars(self).items() if isinstance(module, nn.Module)}


def adapter(seed=0, dtype=torch.float32, rank=4, **shapes):
    """Tensors for every linear layer of the components in ``shapes``."""
    tensors = {}
    for name, (count, width) in (shapes or SHAPES).items():
        for block in range(count):
            down, up = factors(width, width, rank, 100 * seed + block, dtype)
            tensors[f"{name}.blocks.{block}.lora_A.weight"] = down
            tensors[f"{name}.blocks.{block}.lora_B.weight"] = up
    return tensors


def hashes(pipeline, sha256):
    return {name: sha256(module) for name, module in pipeline.modules.items()}
