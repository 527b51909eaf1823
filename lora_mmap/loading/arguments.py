"""The arguments of loaders besides the device: what cannot be one is refused in safetensors' words."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from ..errors import LoaderArgumentError

BACKENDS = ("auto", "mmap", "pread")

T = TypeVar("T")


def require_instance(name: str, value: Any, kind: type[T]) -> T:
    """``value``, or TypeError where it is no ``kind``. ``name`` is the argument's."""
    if not isinstance(value, kind):
        given = "'None'" if value is None else f"'{type(value).__name__}' object"
        raise TypeError(f"argument '{name}': {given} is not an instance of '{kind.__name__}'")
    return value


def require_filename(filename: Any) -> str:
    """The path that ``filename`` is. Raises TypeError for anything but a str or an ``os.PathLike`` of one."""
    path = os.fspath(filename) if isinstance(filename, os.PathLike) else filename
    if not isinstance(path, (str, bytes)):
        found = type(path).__name__
        raise TypeError(f"argument 'filename': expected str, bytes or os.PathLike object, not {found}")
    return require_instance("filename", path, str)


def require_backend(backend: Any) -> str:
    """Raises LoaderArgumentError (a SafetensorError) for a name that is none, TypeError for anything but a str."""
    name = require_instance("backend", backend, str)
    if name not in BACKENDS:
        expected = ", ".join(f'"{known}"' for known in BACKENDS)
        raise LoaderArgumentError(f'backend "{name}" is invalid (expected one of: {expected})')
    return name
