"""What we know about each model: its index, its lock and the composition in its weights. Dies with the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .adapter import Adapter
from .base_checkpoint import BaseCheckpoint
from .errors import ArgumentError
from .factor_store import FactorStore
from .geometry import Geometry
from .held import Held
from .leases import Lease
from .model_index import ModelIndex
from .model_weights import ModelWeights
from .pending import Pending
from .sharing import ForkSafeLock
from .targets.branch_plan import NO_WISHES, Wishes
from .targets.held_branch import HeldBranch, living
from .whereabouts import regions

Numerics = Literal["ordered", "fast"]


@dataclass
class Composition:
    """Adapters as they were composed (``multiplier`` apart), and what every weight that is not pristine now holds.

    ``adapters`` are those of the planned entries, which the terms of ``held`` number; ``store`` has their factors.
    """

    entries: list[tuple[Adapter, float]] = field(default_factory=list)
    owned: list[Lease] = field(default_factory=list)
    multiplier: float = 1.0
    held: dict[int, Held] = field(default_factory=dict)  # by address
    branches: dict[int, HeldBranch] = field(default_factory=dict)  # by module
    adapters: list[Adapter] = field(default_factory=list)
    store: FactorStore = field(default_factory=FactorStore)
    restore: str = "auto"
    retain: str = "memory"
    base: BaseCheckpoint | None = None
    strict: bool = False
    component: str | None = None
    numerics: Numerics = "ordered"
    wishes: Wishes = NO_WISHES

    @property
    def undo_nbytes(self) -> int:
        """Bytes held for undoing alone, the factors aside."""
        weights = sum(held.nbytes for held in self.held.values())
        return weights + sum(branch.nbytes for branch in self.branches.values())

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self.undo_nbytes + self.store.nbytes

    def asked(self, entries: list[tuple[Adapter, float]], multiplier: float = 1.0) -> Composition:
        """Another composition with the same wishes, of adapters of this one."""
        listed = {adapter for adapter, _ in entries}
        owned = [lease for lease in self.owned if lease.adapter in listed]
        return replace(
            self,
            entries=entries,
            owned=owned,
            multiplier=multiplier,
            held={},
            branches={},
            adapters=[],
            store=FactorStore(),
        )


class ModelState:
    """One per model. ``lock`` serialises everything that reads or writes its weights through us."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.composition = Composition()
        self.pending: Pending | None = None
        self.original: ModelIndex | None = None  # of the modules that are no copies of some with adapters in them
        self.claimed: list[Geometry] = []  # weights that somebody is writing to through this model
        self.claimed_modules: set[int] = set()  # whose branches somebody is writing to
        self._weights: ModelWeights | None = None

    def settle(self) -> None:
        """Waits for a composition that GPUs are still working on, and raises what went wrong with it."""
        if self.pending is not None:
            self.pending.settle()

    def weights(self, model: nn.Module) -> ModelWeights:
        """The model's weights as they are now; indexed anew if its structure changed since."""
        if self._weights is None or not self._weights.index.is_current():
            self._weights = ModelWeights(model)
        self._weights.refresh()
        return self._weights


_claims_lock = ForkSafeLock()
_registry_lock = ForkSafeLock()
_registry: WeakKeyDictionary[nn.Module, ModelState] = WeakKeyDictionary()


def unwrap(function: str, model: object) -> nn.Module:
    """The module itself, without torch.compile's or DataParallel's wrapper, so that all of them share one state."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"[{function}] model is a {type(model).__name__}, expected a torch.nn.Module")
    inner = model._modules.get("_orig_mod")
    if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else unwrap(function, inner)


def state_of(model: nn.Module) -> ModelState:
    """The state of an unwrapped model, made on first use."""
    with _registry_lock.native:
        state = _registry.get(model)
        if state is None:
            state = _registry[model] = ModelState()
        return state


@contextmanager
def claimed(
    model: nn.Module,
    weights: list[Geometry],
    modules: set[int],
    check: Callable[[list[Geometry], set[int]], None],
) -> Iterator[None]:
    """Inside the block the weights, and the branches of the modules of these identities, are this model's alone.
    ``check`` is given those that other live model objects write to or have adapters in, and raises where they are in
    the way. The caller holds the model's lock."""
    state = state_of(model)
    try:
        with _claims_lock.native:
            check(*_taken_by_others(model))
            state.claimed, state.claimed_modules = weights, modules
        yield
    finally:
        state.claimed, state.claimed_modules = [], set()


def _taken_by_others(model: nn.Module) -> tuple[list[Geometry], set[int]]:
    with _registry_lock.native:
        states = [state for other, state in _registry.items() if other is not model]
    held = regions(held for state in states for held in state.composition.held.values())
    modules = [state.claimed_modules | living(state.composition.branches) for state in states]
    return held + [geometry for state in states for geometry in state.claimed], set().union(*modules)


def threads() -> int:
    """Workers to use: what torch was told to use."""
    return torch.get_num_threads()
