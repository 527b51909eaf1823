"""Everything that a composition may change in a quantised model, to be compared bit by bit."""

import hashlib

import torch
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def state(model):
    """Per module its class and attributes; per tensor its identity, shape, dtype and bytes."""
    tensors = {
        name: (id(value), tuple(value.shape), value.dtype, digest(value))
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }
    modules = {
        name: (type(module), sorted(module.__dict__), getattr(module, "rank", None))
        for name, module in model.named_modules()
    }
    return tensors, modules


def pointers(model):
    """Where the low-rank branches lie, by module."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, SVDQW4A4Linear):
            found[name] = module.proj_down.data_ptr(), module.proj_up.data_ptr()
        elif isinstance(module, AWQW4A16Linear) and "_lora_mmap_down" in module.__dict__:
            found[name] = tuple(module.__dict__[key].data_ptr() for key in ("_lora_mmap_down", "_lora_mmap_up"))
    return found


def quantised(model):
    """{name: module} of the layers that nobody may write to."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, SVDQW4A4Linear | AWQW4A16Linear)
    }
