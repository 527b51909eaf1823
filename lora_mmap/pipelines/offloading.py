"""Modules whose weights others keep elsewhere between forwards: what is written to them would be lost."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ModelError

_GROUPS = "group_offloading"  # what diffusers calls its hook


def require_present(function: str, component: str, module: nn.Module) -> None:
    """Raises ModelError where accelerate leaves weights on meta, or diffusers writes groups of them to files, and
    brings them back for each forward. Offloading that keeps them in memory is fine."""
    for name, inner in module.named_modules():
        if hasattr(inner, "_hf_hook"):
            key = next((key for key, value in inner._parameters.items() if value is not None and value.is_meta), None)
            if key is not None:
                raise ModelError(
                    f"[{function}] weight '{name}.{key}' of {component} is on the meta device: accelerate offloads it "
                    "and brings it for each forward; fuse and unfuse before it does, or after remove_all_hooks() "
                    "(enable_model_cpu_offload() is fine)"
                )
        folder = _folder_of(getattr(inner, "_diffusers_hook", None))
        if folder is not None:
            raise ModelError(
                f"[{function}] module '{name}' of {component} is offloaded to {folder}: diffusers brings its weights "
                "for each forward; fuse and unfuse before it does, or offload groups to memory"
            )


def _folder_of(registry: Any) -> str | None:
    """Where diffusers' group offloading writes a module's weights to."""
    hook = registry.get_hook(_GROUPS) if hasattr(registry, "get_hook") else None
    folder = getattr(getattr(hook, "config", None), "offload_to_disk_path", None)
    return None if folder is None else str(folder)
