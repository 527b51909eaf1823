"""Adapters made up for tests: factor pairs, their keys, and files of them."""

import torch
from safetensors.torch import save_file


def factors(rows, cols, rank=4, seed=0, dtype=torch.float32, size=0.1):
    """(down [rank, cols], up [rows, rank]) of a given magnitude. ``cols`` may be a tuple: a convolution's."""
    generator = torch.Generator().manual_seed(seed)
    inner = (cols,) if isinstance(cols, int) else tuple(cols)
    down = torch.randn((rank, *inner), generator=generator) * size
    up = torch.randn((rows, rank), generator=generator) * size
    if len(inner) > 1:
        up = up.reshape(rows, rank, *(1,) * (len(inner) - 1))
    return down.to(dtype), up.to(dtype)


def keyed(pairs, alpha=None, prefix="", words=("lora_A.weight", "lora_B.weight")):
    """A flat dict of tensors from {module: (down, up)}; with ``alpha`` an alpha key per module."""
    tensors = {}
    for module, (down, up) in pairs.items():
        tensors[f"{prefix}{module}.{words[0]}"] = down.contiguous()
        tensors[f"{prefix}{module}.{words[1]}"] = up.contiguous()
        if alpha is not None:
            tensors[f"{prefix}{module}.alpha"] = torch.tensor(float(alpha))
    return tensors


def adapter_for(model, modules, rank=4, seed=0, dtype=torch.float32, size=0.1):
    """{module: (down, up)} with the shapes that ``model``'s modules have."""
    pairs = {}
    for position, name in enumerate(modules):
        shape = model.get_submodule(name).weight.shape
        inner = shape[1] if len(shape) == 2 else tuple(shape[1:])
        pairs[name] = factors(shape[0], inner, rank, 1000 * seed + position, dtype, size)
    return pairs


def write(path, tensors, metadata=None):
    save_file(tensors, str(path), metadata)
    return path
