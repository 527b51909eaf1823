"""Models on the fake device, and the same on the CPU to hold them against."""

import copy

import pytest
import torch
from torch import nn


class Varied(nn.Module):
    """Every kind of weight: four dtypes, a convolution in two memory orders, tied weights, a transposed one."""

    def __init__(self):
        super().__init__()
        self.small = nn.Linear(40, 24, bias=False).half()
        self.brain = nn.Linear(136, 200).bfloat16()
        self.single = nn.Linear(23, 37)
        self.wide = nn.Linear(9, 11).double()
        self.conv = nn.Conv2d(5, 7, 3).bfloat16()
        self.last = nn.Conv2d(6, 10, 3).half().to(memory_format=torch.channels_last)
        self.tied = nn.Linear(40, 24, bias=False)
        self.tied.weight = self.small.weight
        self.turned = nn.Linear(33, 17)
        self.turned.weight = nn.Parameter(torch.randn(33, 17).t())


@pytest.fixture
def models(torch_side):
    """The same model twice: on the fake device, and on the CPU."""
    torch.manual_seed(5)
    host = Varied()
    return torch_side.move(copy.deepcopy(host)), host
