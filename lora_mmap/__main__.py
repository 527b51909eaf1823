"""``python -m lora_mmap``: the same as ``lora-mmap``; without arguments, what ``lora-mmap doctor`` says."""

import sys

from .cli import app

app(sys.argv[1:] or ["doctor"], prog_name="lora-mmap")
