"""One layer of every kind that adapters are trained for; composite widths, so that Kronecker products have factors."""

from __future__ import annotations

import torch
from torch import nn


class Layers(nn.Module):
    """Names that no family of models has: adapters find them by name alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(30, 42)
        self.line = nn.Conv1d(6, 10, 3)
        self.image = nn.Conv2d(6, 10, 3)
        self.point = nn.Conv2d(10, 12, 1)
        self.volume = nn.Conv3d(4, 6, 2)
        self.table = nn.Embedding(21, 13)
        self.norm = nn.LayerNorm(13)
        self.group = nn.GroupNorm(4, 12)


def layers() -> Layers:
    torch.manual_seed(0)
    model = Layers()
    for norm in (model.norm, model.group):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.eval()
