"""Drop-in for ``safetensors.numpy``: the same functions, with the loading done here.

Element types that numpy lacks (bfloat16, 8- and 4-bit floats) come as ``ml_dtypes`` dtypes where that package is
installed, otherwise as one-field structured dtypes of the raw bits: see :mod:`lora_mmap.loading.numpy_dtypes`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from safetensors.numpy import save, save_file

from . import _C
from .loading import safe_open
from .loading.arguments import require_instance
from .loading.numpy_reader import numpy_kind

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]


def load_file(filename: str | os.PathLike[str], *, backend: str = "auto") -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a safetensors file as writable arrays, in the order of their data in the file.

    Nothing is written back to the file. For ``backend`` and errors see :class:`.safe_open`.
    """
    with safe_open(filename, framework="np", backend=backend) as file:
        arrays: dict[str, np.ndarray[Any, Any]] = file.get_tensors()
    return arrays


def load(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file that is in memory, copied to writable arrays, in the order of their data.

    Raises HeaderError (a SafetensorError) where the bytes break a rule of the format, TypeError for anything but bytes.
    """
    header = _C.Header.parse(require_instance("bytes", data, bytes))
    made: dict[str, np.ndarray[Any, Any]] = {}
    for name, dtype, shape in zip(header.names(), header.dtypes(), header.shapes(), strict=True):
        made[name] = np.empty(*numpy_kind(dtype, shape, f"bytes in memory: tensor `{name}`"))
    addresses = [array.ctypes.data for array in made.values()]
    _C.copy_ranges(data, list(zip(header.offsets(), header.nbytes(), addresses, strict=True)))
    return made
