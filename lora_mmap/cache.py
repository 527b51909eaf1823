"""What is kept between calls, and giving it back."""

from __future__ import annotations

from . import _C


def clear_lora_cache() -> dict[str, int]:
    """Frees what is kept between calls: the pinned memory through which files go to CUDA devices.

    Waits for copies that are under way. Returns the bytes freed by kind: ``{"pinned": ...}``. What is needed again is
    made again.
    """
    return {"pinned": _C.cuda_clear()}
