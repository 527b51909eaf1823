"""What is kept between calls: how much it is, and giving it back."""

from __future__ import annotations

from typing import Any

from . import _C, cache_settings
from .adapter_cache import adapter_cache


def clear_lora_cache() -> dict[str, int]:
    """Frees what is kept between calls: the files that ``use_cache=True`` keeps open, with their classified keys and
    whatever factors ``LORA_MMAP_CACHE_BYTES`` had room for, and the pinned memory through which files go to CUDA
    devices. Waits for copies that are under way.

    Returns ``{"entries", "headers", "factors", "pinned"}``: adapters let go of, and the bytes freed by kind. An adapter
    that is fused into a model, or loaded into a pipeline, stays open for that alone, and its bytes are not counted.
    What is needed again is made again.
    """
    return {**adapter_cache.clear(), "pinned": _C.cuda_clear()}


def lora_cache_info() -> dict[str, Any]:
    """What is kept between calls: ``entries`` of at most ``max_entries`` (``LORA_MMAP_CACHE_SIZE``, or
    ``ONEDIFFX_LORA_CACHE_SIZE``; 10, 0 is off), ``bytes`` by kind (``headers`` as they are in the files, ``factors`` of
    at most ``max_bytes``, ``LORA_MMAP_CACHE_BYTES``; 0, ``pinned``), and what has been counted since the process began:
    ``hits``, ``misses`` and ``evictions``. Raises ArgumentError where a variable is no whole number from 0 on.
    """
    function = "lora_cache_info"
    found = adapter_cache.info()
    return {
        "entries": found["entries"],
        "max_entries": cache_settings.max_entries(function),
        "bytes": {"headers": found["headers"], "factors": found["factors"], "pinned": _C.cuda_pinned_nbytes()},
        "max_bytes": cache_settings.max_factor_nbytes(function),
        **{name: found[name] for name in ("hits", "misses", "evictions")},
    }
