"""The global names of all modules, by the identity of what they hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_OWN = __name__.partition(".")[0]
# The original stays where safetensors' native module keeps it.
_NATIVE = "safetensors._safetensors_rust"

# The namespace itself: lazy modules override __getattr__ and even __getattribute__, and must not be woken.
_namespace = vars(ModuleType)["__dict__"].__get__


def namespace(key: str) -> dict[str, Any] | None:
    """Of the module that ``sys.modules`` has under ``key``; None where that is none. Runs no code of the module."""
    module = sys.modules.get(key)
    return _namespace(module) if issubclass(type(module), ModuleType) else None


def rebind(replacements: Mapping[int, tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Lets every global name that holds an old object hold the new one: ``{id(old): (old, new)}``.

    Returns the (module, name) pairs. Skips our own modules. Other threads may import meanwhile: what they bind after
    their module was looked at stays as it is.
    """
    rebound = []
    for key in sys.modules.copy():  # copies are made whole, whatever other threads do
        if not isinstance(key, str) or key.partition(".")[0] == _OWN or key == _NATIVE:
            continue
        names = namespace(key)
        if names is None or not _may_hold(names, replacements):
            continue
        for name, value in names.copy().items():
            found = replacements.get(id(value))
            if found is not None and found[0] is value and names.get(name) is value:
                names[name] = found[1]
                rebound.append((key, name))
    return rebound


def _may_hold(names: dict[str, Any], wanted: Mapping[int, object]) -> bool:
    """One pass in C: nearly no module holds any, and there are thousands."""
    try:
        return not wanted.keys().isdisjoint(map(id, names.values()))
    except RuntimeError:  # another thread binds names of this module at this moment
        return True
