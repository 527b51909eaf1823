"""The embedded example behind ``lora-mmap demo``."""

from .run import run

__all__ = ["run"]
