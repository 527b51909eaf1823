"""The limits of the cache, as the environment sets them. Looked up whenever they are needed."""

from __future__ import annotations

import os

from .errors import ArgumentError

# Ours goes before OneDiffX's.
SIZE_VARIABLES = ("LORA_MMAP_CACHE_SIZE", "ONEDIFFX_LORA_CACHE_SIZE")
BYTES_VARIABLE = "LORA_MMAP_CACHE_BYTES"
DEFAULT_SIZE = 10


def max_entries(function: str) -> int:
    """Adapters that the cache keeps open; 0 where it is off. Raises ArgumentError for what is no such number."""
    return next((value for name in SIZE_VARIABLES if (value := _number(function, name)) is not None), DEFAULT_SIZE)


def max_factor_nbytes(function: str) -> int:
    """Bytes of factors that the cache keeps in memory; 0 where it keeps none."""
    return _number(function, BYTES_VARIABLE) or 0


def _number(function: str, name: str) -> int | None:
    text = os.environ.get(name)
    if text is None or not text.strip():
        return None
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ArgumentError(f"[{function}] environment variable {name} is {text!r}, expected a whole number from 0 on")
    return value
