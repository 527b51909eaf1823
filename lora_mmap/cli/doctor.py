"""``lora-mmap doctor``: what is installed, what would run, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch
from rich.console import Console
from rich.table import Table

from .. import _C, __version__
from ..model_state import threads
from .cuda_rows import cuda_rows

_PEERS = ("safetensors", "numpy", "diffusers", "peft", "transformers", "accelerate")


def show(console: Console) -> None:
    """Prints one table."""
    table = Table(title=f"lora_mmap {__version__}", show_header=False, title_justify="left")
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    table.add_row("torch", torch.__version__)
    for name in _PEERS:
        table.add_row(name, _version(name))
    forced = os.environ.get("LORA_MMAP_ISA")
    table.add_row("instruction set", f"{_C.isa()} of {', '.join(_C.isas())}" + (" (LORA_MMAP_ISA)" if forced else ""))
    table.add_row("threads", f"{threads()} (torch.get_num_threads())")
    table.add_row("native core", _C.__file__)
    for label, sentence in cuda_rows():
        table.add_row(label, sentence)
    console.print(table)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
