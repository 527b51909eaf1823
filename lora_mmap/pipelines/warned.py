"""What is no error and should still be seen."""

from __future__ import annotations

import warnings


class LoraWarning(UserWarning):
    """Something that was asked for was left out: an adapter's name that is taken, or that nobody knows."""


def warn(message: str, outwards: int = 0) -> None:
    """Warns at the caller of the function that calls this, or of one so many calls further out."""
    warnings.warn(message, LoraWarning, stacklevel=3 + outwards)
