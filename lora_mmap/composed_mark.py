"""A mark on modules whose weights have adapters in them, which tells copies of them apart from the original."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from .errors import ModelError
from .held import Held
from .targets.branch import is_marked
from .targets.branch_place import take_off

_NAME = "_lora_mmap"
_COPY = "a copy of a module with adapters in its weights"


class _Mark:
    """Copies and pickles of it are plain text, so that they mean something without this package too."""

    def __deepcopy__(self, memo: object) -> str:
        return _COPY

    def __copy__(self) -> str:
        return _COPY

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (_COPY,)


_MARK = _Mark()


def put(root: nn.Module, held: Iterable[Held], branches: Collection[int]) -> None:
    """Marks the modules that have these weights, and those of these identities, and no others."""
    wanted = {id(one.geometry.weight) for one in held}
    for module in root.modules():
        if id(module) in branches or (
            wanted and any(id(parameter) in wanted for parameter in module._parameters.values())
        ):
            module.__dict__[_NAME] = _MARK
        else:
            module.__dict__.pop(_NAME, None)


def require_original(function: str, root: nn.Module) -> None:
    """Raises ModelError where a module is a copy of one with adapters in it: what undoes them stayed behind."""
    for name, module in root.named_modules():
        if module.__dict__.get(_NAME) == _COPY:
            raise ModelError(
                f"[{function}] module '{name}' is {_COPY}: what takes them out stayed with the original. Reset before "
                "copying or saving a model, or reset(copy, force=True) to take its present weights as pristine"
            )


def accept(root: nn.Module) -> bool:
    """Takes the present weights of copies as pristine; branches are taken off them. True where there were such."""
    copies = [(name, module) for name, module in root.named_modules() if module.__dict__.get(_NAME) == _COPY]
    for name, module in copies:
        del module.__dict__[_NAME]
        if is_marked(module):
            take_off(module, name)
    return bool(copies)
