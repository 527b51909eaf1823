"""Parameters that accelerate keeps elsewhere while their module holds meta tensors."""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import torch
from torch import nn


class _Overlay(ChainMap):  # type: ignore[type-arg]
    """An offloading hook's map of values, with some of them replaced."""


def present(module: nn.Module, key: str) -> torch.Tensor:
    """The tensor that a module computes with as ``key``; on the meta device where it is nowhere."""
    value = module._parameters.get(key)
    if value is None:
        value = getattr(module, key)
    hook = _hook(module, key) if value.is_meta else None
    return value if hook is None else hook.weights_map[key]


def hold(module: nn.Module, key: str) -> None:
    """Has it compute with one tensor from now on that can be written to, also where it is read from disk each time."""
    hook = _hook(module, key) if getattr(module, key).is_meta else None
    with torch.inference_mode(False):
        if hook is not None and (tensor := hook.weights_map[key]) is not hook.weights_map[key]:
            _overlay(hook).maps[0][key] = tensor


def replace(module: nn.Module, key: str, tensor: torch.Tensor) -> None:
    """Has it compute with another tensor, of any shape. The parameter stays the same object."""
    value: torch.Tensor = getattr(module, key)
    hook = _hook(module, key) if value.is_meta else None
    if hook is None:
        value.data = tensor
        return
    replaced, original = _overlay(hook).maps
    if original[key].shape == tensor.shape and torch.equal(original[key], tensor):
        replaced.pop(key, None)
    else:
        replaced[key] = tensor
    if not replaced:
        hook.weights_map = original
    value.data = torch.empty(tensor.shape, dtype=value.dtype, device="meta")


def _overlay(hook: Any) -> _Overlay:
    if not isinstance(hook.weights_map, _Overlay):
        hook.weights_map = _Overlay({}, hook.weights_map)
    overlay: _Overlay = hook.weights_map
    return overlay


def _hook(module: nn.Module, key: str) -> Any:
    """accelerate's hook that brings the parameter for every forward, if there is one."""
    outer = getattr(module, "_hf_hook", None)
    for hook in (outer, *getattr(outer, "hooks", ())):
        values = getattr(hook, "weights_map", None)
        if getattr(hook, "offload", False) and values is not None and key in values:
            return hook
    return None
