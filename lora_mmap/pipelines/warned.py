"""What is no error and should still be seen."""

from __future__ import annotations

import warnings


class LoraWarning(UserWarning):
    """Something that was asked for was left out: an adapter's name that is taken, or that nobody knows."""


def warn(message: str) -> None:
    """Warns at the caller of a public function of :mod:`.calls`."""
    warnings.warn(message, LoraWarning, stacklevel=4)
