"""What takes the place of safetensors' loaders: objects of their own, so that nobody's use of ours is ever mistaken.

A stand-in looks like what it stands for (name, signature, docstring, ``__wrapped__``) and loads through us while
``switch.on``. When that is off it *is* what it stands for: somebody may have kept it in a closure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ..loading import safe_open
from ..loading.handle import _THEIR_SAFE_OPEN

_MARK = "__stands_in_for_lora_mmap__"


class Switch:
    """Process-wide. Read by every call of a stand-in, without a lock."""

    on = False


switch = Switch()


class _SafeOpenType(type):
    """Handles opened before, after or beside us count as instances of the name that users check against."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or (
            cls is SafeOpenStandIn and isinstance(instance, (safe_open, _THEIR_SAFE_OPEN))
        )


class SafeOpenStandIn(safe_open, metaclass=_SafeOpenType):
    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls, *args, **kwargs) if switch.on else _THEIR_SAFE_OPEN(*args, **kwargs)


SafeOpenStandIn.__module__ = "safetensors"  # where pickle finds it by name; the original says builtins
SafeOpenStandIn.__name__ = SafeOpenStandIn.__qualname__ = "safe_open"
SafeOpenStandIn.__doc__ = _THEIR_SAFE_OPEN.__doc__
for _name, _value in (
    ("__wrapped__", _THEIR_SAFE_OPEN),
    ("__signature__", inspect.signature(_THEIR_SAFE_OPEN)),
    (_MARK, True),
):
    setattr(SafeOpenStandIn, _name, _value)


def function_stand_in(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """``ours`` under the name of ``theirs``. Arguments are passed as they come, so what is left out is our default."""

    @functools.wraps(theirs)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return (ours if switch.on else theirs)(*args, **kwargs)

    stand_in.__dict__.update({"__signature__": inspect.signature(theirs), _MARK: True})
    return stand_in


def original_of(value: Any) -> Any:
    """What a stand-in stands for, also one of another copy of this module; anything else itself."""
    while isinstance(value, (FunctionType, type)) and _MARK in vars(value):
        value = vars(value)["__wrapped__"]
    return value
