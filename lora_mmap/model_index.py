"""The weights of one model by canonical module name. Built once per model, rebuilt when its modules or parameters do.

Canonical names leave out what wrappers add: ``_orig_mod`` (torch.compile), ``module`` (DataParallel), ``base_layer``
(PEFT). Holds no reference to the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import _C

_WRAPPERS = frozenset({"_orig_mod", "module", "base_layer", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# What diffusers' fuse_qkv_projections() leaves in place but out of use, by the fused module that replaces it.
_FUSED_PROJECTIONS = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


@dataclass(slots=True)
class IndexedWeight:
    """One module with a weight. ``parameters`` is the module's own parameter dict; ``refusal`` says why it cannot be
    fused into, whatever the adapter. ``transposed``: stored [in, out], as transformers' Conv1D does."""

    name: str
    parameters: dict[str, Any]
    weight: torch.Tensor | None
    kind: str
    transposed: bool = False
    refusal: str | None = None
    geometry: Any = None  # geometry.py's description of the weight when it was last looked at


class ModelIndex:
    """Finds weights by name; ``names`` is the native table, in step with ``weights``."""

    def __init__(self, model: nn.Module) -> None:
        self.weights: list[IndexedWeight] = []
        self._children: list[tuple[dict[str, Any], list[Any]]] = []
        self._fused: list[tuple[nn.Module, bool]] = []
        self._dead: set[str] = set()
        seen: set[str] = set()
        self._walk(model, "", "", seen, is_root=True)
        self.names = _C.ModelNames(
            [weight.name for weight in self.weights], [weight.name not in self._dead for weight in self.weights]
        )

    def is_current(self) -> bool:
        """False once a module or a parameter was added, removed or replaced, or projections were fused or unfused."""
        for modules, children in self._children:
            if (modules or children) and list(modules.values()) != children:
                return False
        for entry in self.weights:
            if entry.parameters.get("weight") is not entry.weight:
                return False
        return all(bool(getattr(module, "fused_projections", False)) == flag for module, flag in self._fused)

    def _walk(self, module: nn.Module, raw: str, name: str, seen: set[str], is_root: bool = False) -> None:
        self._children.append((module._modules, list(module._modules.values())))
        entry = None if is_root else _describe(module, name)
        if entry is not None and name and name not in seen:
            seen.add(name)
            self.weights.append(entry)
        if hasattr(module, "fused_projections"):
            self._mark_dead(module, name)
        for key, child in module._modules.items():
            if child is None or key == "parametrizations":
                continue
            inner = name if key in _WRAPPERS else f"{name}.{key}" if name else key
            if inner in seen and key not in _WRAPPERS:
                inner = f"{raw}.{key}" if raw else key
            self._walk(child, f"{raw}.{key}" if raw else key, inner, seen)

    def _mark_dead(self, module: nn.Module, name: str) -> None:
        fused = bool(module.fused_projections)
        self._fused.append((module, fused))
        if not fused:
            return
        for whole, parts in _FUSED_PROJECTIONS.items():
            if module._modules.get(whole) is not None:
                self._dead.update(f"{name}.{part}" if name else part for part in parts)


def _describe(module: nn.Module, name: str) -> IndexedWeight | None:
    """The index entry of one module, or None where it has nothing a factor pair could belong to."""
    if "parametrizations" in module._modules:
        return IndexedWeight(name, module._parameters, None, "parametrized", refusal="its weight is parametrized")
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        return None
    entry = IndexedWeight(name, module._parameters, weight, _kind(module, weight))
    entry.transposed = entry.kind == "conv1d_transposed"
    if entry.kind in ("embedding", "conv_transpose"):
        entry.refusal = f"{type(module).__name__} is not supported yet"
    return entry


def _kind(module: nn.Module, weight: torch.Tensor) -> str:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return "conv_transpose"
    if weight.dim() == 2:
        # transformers.pytorch_utils.Conv1D: a Linear that keeps its weight as [in, out].
        is_conv1d = type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")
        return "conv1d_transposed" if is_conv1d else "linear"
    return "conv"
