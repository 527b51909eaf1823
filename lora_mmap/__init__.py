"""LoRA adapters from disk into a model's weights in one pass, and out again bit for bit."""

from . import numpy, torch
from .adapter import Adapter
from .adapter_sources import open_adapter
from .cache import clear_lora_cache, lora_cache_info
from .compose import check, compose, reset
from .families import register_family
from .loading import safe_open
from .loras_v2 import compose_loras_v2, reset_lora_v2, set_lora_strength_v2, update_lora_params_v2
from .nunchaku_calls import reset_lora, set_lora_strength, update_lora_params
from .pipelines import (
    LoraWarning,
    PipelineReport,
    delete_adapters,
    get_active_adapters,
    get_list_adapters,
    load_and_fuse_lora,
    load_lora_and_optionally_fuse,
    set_and_fuse_adapters,
    unfuse_lora,
)
from .report import Report
from .routing import Installation, install, installed, uninstall

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Installation",
    "LoraWarning",
    "PipelineReport",
    "Report",
    "__version__",
    "check",
    "clear_lora_cache",
    "compose",
    "compose_loras_v2",
    "delete_adapters",
    "get_active_adapters",
    "get_list_adapters",
    "install",
    "installed",
    "load_and_fuse_lora",
    "load_lora_and_optionally_fuse",
    "lora_cache_info",
    "numpy",
    "open_adapter",
    "register_family",
    "reset",
    "reset_lora",
    "reset_lora_v2",
    "safe_open",
    "set_and_fuse_adapters",
    "set_lora_strength",
    "set_lora_strength_v2",
    "torch",
    "unfuse_lora",
    "uninstall",
    "update_lora_params",
    "update_lora_params_v2",
]
