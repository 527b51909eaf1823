"""The command line: ``lora-mmap demo | inspect | doctor``."""

from .app import app

__all__ = ["app"]
