"""The weights of one model by canonical module name. Built once per model, rebuilt when its modules or parameters do.

Canonical names leave out what wrappers add: ``_orig_mod`` (torch.compile), ``module`` (DataParallel), ``base_layer``
(PEFT). Holds no reference to the model itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from . import _C
from .families.levels import without_levels

_WRAPPERS = frozenset({"_orig_mod", "module", "base_layer", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# What diffusers' fuse_qkv_projections() leaves in place but out of use, by the fused module that replaces it.
_FUSED_PROJECTIONS = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
_TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# What a module may call its only weight besides "weight": BFL's RMSNorm has a scale.
WEIGHT_NAMES = ("weight", "scale")
_NOT_A_MATRIX = "its weight has one dimension, expected a matrix"


@dataclass(slots=True)
class IndexedWeight:
    """One parameter that an adapter may name. ``name`` is its module's, or its own where the module has several.

    ``parameters`` is the module's own parameter dict and ``key`` the place in it; ``refusal`` says why it cannot be
    fused into, whatever the adapter. ``transposed``: stored [in, out], as transformers' Conv1D does. ``bearer`` is the
    module where it is linear: factors may be put beside a weight that cannot be fused into.
    """

    name: str
    parameters: dict[str, Any]
    key: str = "weight"
    transposed: bool = False
    refusal: str | None = None
    bearer: weakref.ref[nn.Module] | None = None

    @property
    def weight(self) -> torch.Tensor | None:
        """The module's present parameter."""
        return self.parameters.get(self.key)

    @property
    def is_parameter(self) -> bool:
        """True where ``name`` is the parameter's own, not its module's."""
        return self.name == self.key or self.name.endswith(f".{self.key}")


class ModelIndex:
    """Finds weights by name; ``names`` is the native table. ``weights`` are the matrices that factors may belong to,
    ``others`` what only differences and biases are for: norms, parameters of their own, quantised weights. Numbers run
    through both."""

    def __init__(self, model: nn.Module) -> None:
        self.weights: list[IndexedWeight] = []
        self.others: list[IndexedWeight] = []
        self._containers: list[dict[str, Any]] = []
        self._counts: list[int] = []  # of the containers' children, as they were
        self._children: list[Any] = []  # all of them, container by container
        self._fused: list[tuple[weakref.ref[nn.Module], bool]] = []
        self._dead: set[str] = set()
        self._walk(model, "", "", set(), is_root=True)
        self.module_names = [entry.name for entry in (*self.weights, *self.others)]
        self.names = _C.ModelNames(
            self.module_names,
            [name not in self._dead for name in self.module_names],
            [(number, alias) for number, name in enumerate(self.module_names) for alias in without_levels(name)],
        )

    def entry(self, number: int) -> IndexedWeight:
        """The weight that ``names`` knows by this number."""
        count = len(self.weights)
        return self.weights[number] if number < count else self.others[number - count]

    def is_current(self) -> bool:
        """False once a module was added, removed or replaced, or projections were fused or unfused.

        Replaced parameters need no new index: every look at a weight takes the module's present one.
        """
        if list(map(len, self._containers)) != self._counts:
            return False
        if list(chain.from_iterable(map(dict.values, self._containers))) != self._children:
            return False
        return all(bool(getattr(module(), "fused_projections", False)) == flag for module, flag in self._fused)

    def _walk(self, module: nn.Module, raw: str, name: str, seen: set[str], is_root: bool = False) -> None:
        if module._modules:  # a leaf that grows children is a new module to its parent, or parametrized and refused
            self._containers.append(module._modules)
            self._counts.append(len(module._modules))
            self._children += module._modules.values()
        for entry in _entries(module, name, is_root):
            if entry.name and entry.name not in seen:
                seen.add(entry.name)
                (self.others if entry.refusal == _NOT_A_MATRIX else self.weights).append(entry)
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


def _entries(module: nn.Module, name: str, is_root: bool) -> Iterator[IndexedWeight]:
    """The index entries of one module: its weight under the module's name, other parameters under their own."""
    parameters = module._parameters
    if "parametrizations" in module._modules:
        yield IndexedWeight(name, parameters, refusal="its weight is parametrized")
        return
    if not parameters and "qweight" not in module._buffers:
        return
    holder = next((key for key in WEIGHT_NAMES if parameters.get(key) is not None), None)
    if is_root:
        holder = "weight"  # a model without modules is none
    elif holder is not None:
        yield _describe(module, name, parameters, holder)
    elif "qweight" in parameters or "qweight" in module._buffers:
        refusal = f"it is a {type(module).__name__}, whose weight is quantised"
        yield IndexedWeight(name, parameters, refusal=refusal, bearer=_bearer(module))
        yield IndexedWeight(f"{name}.qweight", parameters, "qweight", refusal=_NOT_A_MATRIX)
        return
    elif (bearer := _bearer(module)) is not None:
        yield IndexedWeight(
            name, parameters, refusal=f"it is a {type(module).__name__} without a weight", bearer=bearer
        )
    for key, value in parameters.items():
        if value is not None and key not in (holder, "bias"):
            own = f"{name}.{key}" if name else key
            is_matrix = key.endswith("_weight") and value.dim() == 2  # in_proj_weight of torch's attention
            yield IndexedWeight(own, parameters, key, refusal=None if is_matrix else _NOT_A_MATRIX)


def _describe(module: nn.Module, name: str, parameters: dict[str, Any], key: str) -> IndexedWeight:
    if parameters[key].dim() < 2:
        return IndexedWeight(name, parameters, key, refusal=_NOT_A_MATRIX)
    if isinstance(module, _TRANSPOSED_CONVOLUTIONS):
        return IndexedWeight(name, parameters, key, refusal=f"{type(module).__name__} is not supported yet")
    # transformers.pytorch_utils.Conv1D: a Linear that keeps its weight as [in, out].
    is_conv1d = type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")
    return IndexedWeight(name, parameters, key, transposed=is_conv1d, bearer=_bearer(module))


def _bearer(module: nn.Module) -> weakref.ref[nn.Module] | None:
    """The module where it is a linear one without modules inside."""
    features = (getattr(module, name, None) for name in ("in_features", "out_features"))
    is_linear = not module._modules and all(type(count) is int and count > 0 for count in features)
    return weakref.ref(module) if is_linear else None
