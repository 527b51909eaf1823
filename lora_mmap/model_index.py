"""The weights of one model by canonical module name. Built once per model, rebuilt when its modules or parameters do.

Canonical names leave out what wrappers add: ``_orig_mod`` (torch.compile), ``module`` (DataParallel), ``base_layer``
(PEFT). Holds no reference to the model itself.
"""

from __future__ import annotations

import weakref
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


# ComfyUI's model objects hold the denoiser under this name; files may or may not say so.
_HOLDER = "diffusion_model."

_TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(slots=True)
class IndexedWeight:
    """One module with a weight. ``parameters`` is the module's own parameter dict; ``refusal`` says why it cannot be
    fused into, whatever the adapter. ``transposed``: stored [in, out], as transformers' Conv1D does."""

    name: str
    parameters: dict[str, Any]
    transposed: bool = False
    refusal: str | None = None

    @property
    def weight(self) -> torch.Tensor | None:
        """The module's present weight."""
        return self.parameters.get("weight")


class ModelIndex:
    """Finds weights by name; ``names`` is the native table, in step with ``weights``."""

    def __init__(self, model: nn.Module) -> None:
        self.weights: list[IndexedWeight] = []
        self._children: list[tuple[dict[str, Any], list[Any]]] = []
        self._fused: list[tuple[weakref.ref[nn.Module], bool]] = []
        self._dead: set[str] = set()
        seen: set[str] = set()
        self._walk(model, "", "", seen, is_root=True)
        self.module_names = [weight.name for weight in self.weights]
        self.names = _C.ModelNames(
            self.module_names,
            [name not in self._dead for name in self.module_names],
            [name.removeprefix(_HOLDER) if name.startswith(_HOLDER) else "" for name in self.module_names],
        )

    def is_current(self) -> bool:
        """False once a module was added, removed or replaced, or projections were fused or unfused.

        Replaced parameters need no new index: every look at a weight takes the module's present one.
        """
        for modules, children in self._children:
            if list(modules.values()) != children:
                return False
        return all(bool(getattr(module(), "fused_projections", False)) == flag for module, flag in self._fused)

    def _walk(self, module: nn.Module, raw: str, name: str, seen: set[str], is_root: bool = False) -> None:
        if module._modules:  # a leaf that grows children is a new module to its parent, or parametrized and refused
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
        self._fused.append((weakref.ref(module), fused))
        if not fused:
            return
        for whole, parts in _FUSED_PROJECTIONS.items():
            if module._modules.get(whole) is not None:
                self._dead.update(f"{name}.{part}" if name else part for part in parts)


def _describe(module: nn.Module, name: str) -> IndexedWeight | None:
    """The index entry of one module, or None where it has nothing a factor pair could belong to."""
    parameters = module._parameters
    if "parametrizations" in module._modules:
        return IndexedWeight(name, parameters, refusal="its weight is parametrized")
    weight = parameters.get("weight")
    if weight is None or weight.dim() < 2:
        return None
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag, *_TRANSPOSED_CONVOLUTIONS)):
        return IndexedWeight(name, parameters, refusal=f"{type(module).__name__} is not supported yet")
    # transformers.pytorch_utils.Conv1D: a Linear that keeps its weight as [in, out].
    is_conv1d = type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")
    return IndexedWeight(name, parameters, transposed=is_conv1d)
