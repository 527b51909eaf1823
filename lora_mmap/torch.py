"""Drop-in for ``safetensors.torch``: the same functions, with the loading done here.

Saving is safetensors' own: it writes to a temporary file and renames it, so a mapping of the old file stays whole.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors.torch import _remove_duplicate_names, save, save_file, save_model

from . import _C
from .loading import safe_open
from .loading.arguments import require_instance
from .loading.destinations import HostMemory
from .loading.torch_reader import torch_kind

__all__ = ["load", "load_file", "load_model", "safe_open", "save", "save_file", "save_model"]


def load_file(
    filename: str | os.PathLike[str], device: Any = "cpu", *, backend: str = "auto"
) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, in the order of their data in the file.

    CPU tensors each have a storage of their own, are writable without writing to the file, and survive its unlinking.
    ``torch.set_default_device`` does not affect them. For ``device``, ``backend`` and errors see :class:`.safe_open`.
    """
    with safe_open(filename, framework="pt", device=device, backend=backend) as file:
        tensors: dict[str, torch.Tensor] = file.get_tensors()
    return tensors


def load(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file that is in memory, copied, in the order of their data.

    Raises HeaderError (a SafetensorError) where the bytes break a rule of the format, TypeError for anything but bytes.
    """
    header = _C.Header.parse(require_instance("bytes", data, bytes))
    made: dict[str, torch.Tensor] = {}
    for name, dtype, shape in zip(header.names(), header.dtypes(), header.shapes(), strict=True):
        made[name] = HostMemory().empty(*torch_kind(dtype, shape, f"bytes in memory: tensor `{name}`"))
    addresses = [tensor.data_ptr() for tensor in made.values()]
    _C.copy_ranges(data, list(zip(header.offsets(), header.nbytes(), addresses, strict=True)))
    return made


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: Any = "cpu",
    *,
    backend: str = "auto",
) -> tuple[set[str], list[str]]:
    """Loads a file into a model whose parameters may share memory. Returns (missing, unexpected) names.

    Of parameters that share memory the file needs only one: the others do not count as missing. Raises RuntimeError
    when ``strict`` and a name is missing or unexpected, after everything else was loaded.
    """
    tensors = load_file(filename, device=device, backend=backend)
    twins = _remove_duplicate_names(model.state_dict(), preferred_names=list(tensors))
    loaded = model.load_state_dict(tensors, strict=False)
    missing, unexpected = set(loaded.missing_keys), list(loaded.unexpected_keys)
    for names in twins.values():
        for name in names:
            if name in missing:
                missing.remove(name)
            else:
                unexpected.append(name)
    if strict and (missing or unexpected):
        lines = [f"Error(s) in loading state_dict for {type(model).__name__}:"]
        for what, names in (("Missing", sorted(missing)), ("Unexpected", sorted(unexpected))):
            if names:
                quoted = ", ".join(f'"{name}"' for name in names)
                lines.append(f"    {what} key(s) in state_dict: {quoted}")
        raise RuntimeError("\n".join(lines))
    return missing, unexpected
