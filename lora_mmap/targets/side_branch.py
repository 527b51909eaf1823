"""Linear modules with a weight of 8 bits or fewer, or of a kind that nobody here knows: a branch beside their forward.

The module gets a subclass of its own class whose call adds ``(x @ down^T) @ up`` to what the module returns, hooks and
wrappers of its ``forward`` included (they see what it returns without a branch): nothing is in its parameters, buffers,
``state_dict`` or repr. With the last rank the class and the factors go.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import nn

from .branch import Branch, Extent, Factors, Layout

_DOWN, _UP = "_lora_mmap_down", "_lora_mmap_up"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_COMPUTING = (*_FLOATS, torch.float64)
# What the factors take their dtype from, in this order: a bias, the scales beside a quantised weight, the weight's own.
_TELLING = ("bias", "wscales", "scales", "scale", "weight")
RANK_LIMIT = 1024

_classes: dict[type[nn.Module], type[nn.Module]] = {}  # by what they add to; kept, or compiled code would be made anew


class _Beside:
    """Marks the classes that are made here."""

    __slots__ = ()


def _with_branch(base: Any) -> type[nn.Module]:
    """The class that adds a branch to ``base``. Its first base is ``base`` itself: only then do the instances of both
    have the same layout, whatever that is, and one can become the other."""
    if base not in _classes:

        class Beside(base, _Beside):  # type: ignore[misc]
            """The factors are plain attributes: they move with the module, and stay at their dtype when it is cast."""

            __module__, __qualname__, __doc__ = base.__module__, base.__qualname__, base.__doc__

            # Whoever took a bound method before the class was changed, as torch.compile(module) does, still arrives in
            # _call_impl; after it was changed back, the methods of ``base`` are what these call.
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                result = base.__call__(self, *args, **kwargs)
                return result if self._compiled_call_impl is None else _add(self, args, kwargs, result)

            def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
                return _add(self, args, kwargs, base._call_impl(self, *args, **kwargs))

            def compile(self, *args: Any, **kwargs: Any) -> None:
                self._compiled_call_impl = torch.compile(MethodType(base._call_impl, self), *args, **kwargs)

            def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
                applied = base._apply(self, fn, recurse)
                _move(self, fn)
                return applied

            def __reduce_ex__(self, protocol: Any) -> Any:
                make, arguments, *state = super().__reduce_ex__(protocol)
                if arguments[:1] != (type(self),):  # it knows how to make itself
                    return make, arguments, *state
                return _new, (base, make, *arguments[1:]), *state

        Beside.__name__ = base.__name__
        _classes[base] = Beside
    return _classes[base]


def _add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """What the module gave for its input, and its branch for the same one."""
    down, up = module.__dict__.get(_DOWN), module.__dict__.get(_UP)
    if down is None or up is None:
        return result
    given = args[0] if args else next(iter(kwargs.values()))
    # On another device where an offloading hook brought the module's own tensors.
    inputs = given.to(result.device, given.dtype if given.dtype in _COMPUTING else down.dtype)
    added = (inputs @ down.to(inputs).t()) @ up.to(inputs)
    return result + added.to(result.dtype)


def _move(module: nn.Module, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for key in (_DOWN, _UP):
        if (factor := module.__dict__.get(key)) is not None:
            moved = fn(factor)
            module.__dict__[key] = moved if moved.dtype == factor.dtype else factor.to(moved.device)


def _new(base: type[nn.Module], make: Callable[..., nn.Module], *more: Any) -> nn.Module:
    """An empty module of the class that adds a branch to ``base``: what a copy or a pickle begins with."""
    return make(_with_branch(base), *more)


class PlainBranch(Branch):
    """``down`` [rank, in] and ``up``, stored transposed: [rank, out]."""

    layouts: ClassVar[tuple[Layout, Layout]] = ("plain", "plain")
    step = 1
    limit = RANK_LIMIT
    unknown = torch.bfloat16  # the factors' dtype beside a module that tells none

    @property
    def is_attached(self) -> bool:
        return _DOWN in self.module.__dict__

    @property
    def dtype(self) -> torch.dtype:
        if self.is_attached:
            dtype: torch.dtype = self.module.__dict__[_DOWN].dtype
            return dtype
        computing = getattr(self.module, "compute_dtype", None)  # bitsandbytes' 4-bit layers
        telling = [getattr(getattr(self.module, key, None), "dtype", None) for key in _TELLING]
        return next((dtype for dtype in (computing, *telling) if dtype in _FLOATS), self.unknown)

    @property
    def device(self) -> torch.device:
        if self.is_attached:
            device: torch.device = self.module.__dict__[_DOWN].device
            return device
        own = (*self.module._parameters.values(), *self.module._buffers.values())
        found = next((tensor.device for tensor in own if tensor is not None), torch.device("cpu"))
        is_offloaded = found.type == "meta" and hasattr(self.module, "_hf_hook")
        return torch.device("cpu") if is_offloaded else found

    def factors(self) -> Factors:
        if self.is_attached:
            return Factors(self.module.__dict__[_DOWN], self.module.__dict__[_UP])
        features: list[Any] = [self.module.in_features, self.module.out_features]
        return Factors(*(torch.empty(0, count, dtype=self.dtype, device=self.device) for count in features))

    def put(self, factors: Factors) -> None:
        if not len(factors.down):
            self._detach()
            return
        self.module.__dict__.update({_DOWN: factors.down, _UP: factors.up})
        if not isinstance(self.module, _Beside):
            self.module.__class__ = _with_branch(type(self.module))

    def empty(self, like: torch.Tensor, ranks: int) -> torch.Tensor:
        return torch.empty(ranks, like.shape[1], dtype=like.dtype, device=like.device)

    @staticmethod
    def extent(factor: torch.Tensor, begin: int, end: int) -> Extent:
        features = factor.shape[1]
        return Extent(begin * features, end - begin, features, features)

    @staticmethod
    def ranks_in(factor: torch.Tensor) -> int:
        return factor.shape[0]

    def _detach(self) -> None:
        for key in (_DOWN, _UP):
            self.module.__dict__.pop(key, None)
        base = type(self.module).__bases__[0]
        if _classes.get(base) is type(self.module):  # not where somebody else made a subclass of it since
            self.module.__class__ = base
