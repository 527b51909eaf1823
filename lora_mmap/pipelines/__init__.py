"""Adapters by name on whole pipelines, with the calls of OneDiffX."""

from .calls import (
    delete_adapters,
    get_active_adapters,
    get_list_adapters,
    load_and_fuse_lora,
    load_lora_and_optionally_fuse,
    set_and_fuse_adapters,
    unfuse_lora,
)
from .pipeline_report import PipelineReport
from .warned import LoraWarning

__all__ = [
    "LoraWarning",
    "PipelineReport",
    "delete_adapters",
    "get_active_adapters",
    "get_list_adapters",
    "load_and_fuse_lora",
    "load_lora_and_optionally_fuse",
    "set_and_fuse_adapters",
    "unfuse_lora",
]
