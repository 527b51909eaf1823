"""One linear of each kind: a packed branch, 4-bit and 8-bit weights that get a side branch, and a dense weight."""

import torch
from int8_linears import Int8Linear
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear
from torch import nn

SHAPES = {"packed": (80, 64), "modulated": (96, 64), "beside": (48, 64), "dense": (32, 64)}
BRANCHES = {name: shape for name, shape in SHAPES.items() if name != "dense"}
# Of what adapters are rounded to.
FACTORS = {
    "packed": torch.bfloat16,
    "modulated": torch.bfloat16,
    "beside": torch.float32,
    "dense": torch.float32,
}
BASE_RANK = 32  # of the packed branch


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.packed = SVDQW4A4Linear(64, 80, rank=BASE_RANK, seed=1)
        self.modulated = AWQW4A16Linear(64, 96, seed=2)
        self.beside = Int8Linear(64, 48, seed=3)
        with torch.random.fork_rng([]):
            torch.manual_seed(4)
            self.dense = nn.Linear(64, 32).requires_grad_(False)

    def forward(self, x):
        """x [..., 64] -> {name: [..., rows]}."""
        return {name: layer(x) for name, layer in self.named_children()}


def inputs():
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(9))


def by_module(x):
    return dict.fromkeys(SHAPES, x)
