"""``python -m lora_mmap``: the same as ``lora-mmap``."""

from .cli import app

app(prog_name="lora-mmap")
