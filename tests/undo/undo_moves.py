"""What offloading does to weights, on the CPU alone: the same bytes in other memory."""

import numpy as np
import torch
from adapter_tensors import adapter_for, keyed
from torch import nn
from undo_models import all_bits

import lora_mmap

CHANGES = {
    "compose": lambda model, other: lora_mmap.compose(model, [(other, 1.0)]),
    "strength": lambda model, other: lora_mmap.set_lora_strength_v2(model, 0.5),
    "reset": lambda model, other: lora_mmap.reset(model),
}


def round_trip(model, only=None):
    """As ``model.to("cuda").to("cpu")``, for the parameters named ``only`` or for all: new memory for each, strides
    kept."""
    for name, parameter in model.named_parameters():
        if only is None or name in only:
            parameter.data = parameter.data.clone()


def trade_places(one, other):
    """Each of two parameters of one form goes to where the other was, as memory that is freed is given out again."""
    ours, theirs = one.data.clone(), other.data.clone()
    one.data, other.data = other.data, one.data
    one.data.copy_(ours)
    other.data.copy_(theirs)


def move_some(model, random):
    """A round trip of a random part of the parameters; of those of one form, two in three trade places before."""
    parameters = dict(model.named_parameters())
    forms = {}
    for name, parameter in parameters.items():
        forms.setdefault((parameter.shape, parameter.stride()), []).append(name)
    for names in forms.values():
        random.shuffle(names)
        if len(names) > 1 and random.random() < 0.67:
            trade_places(parameters[names[0]], parameters[names[1]])
    round_trip(model, {name for name in parameters if random.random() < 0.5})


class Lent:
    """Puts a parameter of float32 into ``memory``, an array, which dies when no storage has it any more either."""

    def __init__(self, parameter):
        self.memory = np.empty(tuple(parameter.shape), np.float32)
        lent = torch.from_numpy(self.memory)
        lent.copy_(parameter.data)
        parameter.data = lent


class Twins(nn.Module):
    """Layers of one form, so that one may come to lie where another was."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b, self.c = (nn.Linear(70, 50, bias=False) for _ in range(3))
        self.to(dtype).requires_grad_(False)


def pair_for(model, *modules, seed=0):
    return keyed(adapter_for(model, modules or ("a", "b"), seed=seed))


def assert_bits(model, bits):
    assert [name for name, now in all_bits(model).items() if not torch.equal(now, bits[name])] == []
