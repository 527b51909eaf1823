"""Comparing a model on the fake device with its twin on the CPU."""

import torch
from adapter_tensors import adapter_for, keyed, write

MODULES = ("small", "brain", "single", "wide", "conv", "last", "turned")


def adapter_file(folder, model, seed=0, modules=MODULES, name=None, **kind):
    """A file with a pair for each of the modules."""
    path = folder / (name or f"adapter_{seed}.safetensors")
    return write(path, keyed(adapter_for(model, modules, seed=seed, **kind)))


def bytes_of(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def differing(on_device, on_host):
    """Names of the parameters whose bytes differ."""
    pairs = zip(on_device.named_parameters(), on_host.named_parameters(), strict=True)
    return [name for (name, ours), (_, theirs) in pairs if bytes_of(ours) != bytes_of(theirs)]
