"""The embedded example behind ``lora-mmap demo``."""

from .story import run

__all__ = ["run"]
