"""From the terms of a plan to the native jobs of one window: addresses for tensors, index maps for rules."""

from .jobs import Lowered
from .weights import lower

__all__ = ["Lowered", "lower"]
