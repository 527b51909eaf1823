"""What we know about each model: its index, its lock and the composition in its weights. Dies with the model."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .adapter import Adapter
from .errors import ArgumentError
from .geometry import Key
from .model_index import ModelIndex
from .restore import Saved


@dataclass
class Composition:
    """Adapters as they were composed, and the pristine bytes of every weight that is not pristine now."""

    entries: list[tuple[Adapter, float]] = field(default_factory=list)
    owned: list[Adapter] = field(default_factory=list)
    pristine: dict[Key, Saved] = field(default_factory=dict)
    restore: str = "auto"
    strict: bool = False
    component: str | None = None

    @property
    def nbytes(self) -> int:
        return sum(saved.nbytes for saved in self.pristine.values())


class ModelState:
    """One per model. ``lock`` serialises everything that reads or writes its weights through us."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.composition = Composition()
        self._index: ModelIndex | None = None

    def index(self, model: nn.Module) -> ModelIndex:
        """The model's index, rebuilt if its structure or parameters changed since."""
        if self._index is None or not self._index.is_current():
            self._index = ModelIndex(model)
        return self._index


_registry_lock = threading.Lock()
_registry: WeakKeyDictionary[nn.Module, ModelState] = WeakKeyDictionary()


def unwrap(function: str, model: object) -> nn.Module:
    """The module itself, without torch.compile's or DataParallel's wrapper, so that all of them share one state."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"[{function}] model is a {type(model).__name__}, expected a torch.nn.Module")
    while True:
        if isinstance(model._modules.get("_orig_mod"), nn.Module):
            model = model._modules["_orig_mod"]
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def state_of(model: nn.Module) -> ModelState:
    """The state of an unwrapped model, made on first use."""
    with _registry_lock:
        state = _registry.get(model)
        if state is None:
            state = _registry[model] = ModelState()
        return state


def other_owner(model: nn.Module, keys: set[Key]) -> Key | None:
    """A storage region among ``keys`` that another live model object has a composition in, if there is one."""
    with _registry_lock:
        states = [state for other, state in _registry.items() if other is not model]
    for state in states:
        for key in list(state.composition.pristine):
            if key in keys:
                return key
    return None


def threads() -> int:
    """Workers to use: what torch was told to use."""
    return torch.get_num_threads()
