"""The switch: all of safetensors' loaders through us, or none, for the whole process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from .. import log
from .. import numpy as our_numpy
from .. import torch as our_torch
from ..interrupts import HeldInterrupts
from ..loading.handle import _THEIR_SAFE_OPEN
from ..sharing import ForkSafeLock
from . import onediffx
from .module_names import namespace, rebind
from .stand_ins import SafeOpenStandIn, function_stand_in, original_of, switch

_CLASS_NAMES = (("safetensors", "safe_open"), ("safetensors.torch", "safe_open"), ("safetensors.numpy", "safe_open"))
_OUR_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("safetensors.torch", "load_file"): our_torch.load_file,
    ("safetensors.torch", "load"): our_torch.load,
    ("safetensors.torch", "load_model"): our_torch.load_model,
    ("safetensors.numpy", "load_file"): our_numpy.load_file,
    ("safetensors.numpy", "load"): our_numpy.load,
}
_NAMES = (*_CLASS_NAMES, *_OUR_FUNCTIONS)

_lock = ForkSafeLock(threading.RLock)  # a collected generator may leave its block in the middle of a scan
_pairs: dict[int, tuple[Any, Any]] = {id(_THEIR_SAFE_OPEN): (_THEIR_SAFE_OPEN, SafeOpenStandIn)}  # (original, stand-in)
_routed: set[tuple[str, str]] = set()  # (module, name)
_blocks: list[_Block] = []  # in the order in which they began
_told: dict[tuple[str, str], Any] = {}  # foreign patches that the log has: the last of each name


class _Block:
    """A ``with`` block that is being run, and what to go back to after it."""

    def __init__(self, before: bool) -> None:
        self.before = before


class Installation:
    """Whether safetensors' loaders go through us, as :func:`install` and :func:`installed` give it.

    Truthy as long as they do. As a context manager it installs at the beginning of the block and puts the state from
    before back at its end, also after an exception: for the object that :func:`install` returned, the state from
    before that call. Blocks may be nested, and blocks of several threads may overlap in any order: the last one to
    end puts back what was there before the first.
    """

    __slots__ = ("_entered", "_switched_on")

    def __init__(self, switched_on: bool = False) -> None:
        self._switched_on = switched_on  # by the call that returned this: the block to come answers for it
        self._entered: list[_Block] = []

    def __bool__(self) -> bool:
        return switch.on

    def __repr__(self) -> str:
        return f"<lora_mmap {'installed' if self else 'not installed'}>"

    def __enter__(self) -> Installation:
        with _lock.native:
            block = _Block(switch.on and not self._switched_on)
            self._switched_on = False
            if not switch.on:
                _route()
            _blocks.append(block)
            self._entered.append(block)
        return self

    def __exit__(self, *_: object) -> None:
        with _lock.native:
            block = self._entered.pop()
            position = _blocks.index(block)
            del _blocks[position]
            if position < len(_blocks):  # one that began later goes on: it inherits what to go back to
                _blocks[position].before = block.before
            elif block.before is not switch.on:
                (_route if block.before else _restore)()


def install() -> Installation:
    """Routes safetensors' loaders through this package, for the whole process, until :func:`uninstall`.

    These are ``safetensors.safe_open``, ``safetensors.torch.load_file``, ``load`` and ``load_model``,
    ``safetensors.numpy.load_file`` and ``load``: under these names and under every other global name of an imported
    module that holds one of them, such as diffusers', transformers', peft's, accelerate's, ComfyUI's or your own
    ``from safetensors.torch import load_file as safe_load_file``. Modules that are imported later get ours too. A call
    that names no ``backend`` takes ``auto`` (see :class:`.safe_open`); frameworks other than torch and numpy go on to
    safetensors. What was replaced is the ``__wrapped__`` of what took its place.

    Not routed: what safetensors writes; ``deserialize``; originals that were captured elsewhere than in a global name
    (closures, default arguments, attributes of classes and objects); loaders that do not use safetensors, such as the
    mapping of ComfyUI's DynamicVRAM; child processes that are spawned and not forked. A name that somebody else has
    patched is left alone, with a warning in the log.

    Where OneDiffX is not installed, ``onediffx.lora`` can be imported from then on, and has our calls.

    Calling it again changes nothing, except that names which got hold of an original meanwhile are routed too. Nothing
    happens at import of this package. Returns an :class:`Installation`, so that ``with lora_mmap.install():`` works.
    """
    with _lock.native:
        was_on = switch.on
        _route()
    return Installation(switched_on=not was_on)


def uninstall() -> bool:
    """Gives every name that :func:`install` routed its original back, in modules imported since then too.

    A name that somebody else has patched meanwhile is left alone, with a warning in the log. A routed loader that was
    kept elsewhere than in a global name behaves as the original from now on. True where there was something to undo.
    """
    with _lock.native:
        return _restore()


def installed() -> Installation:
    """Whether safetensors' loaders go through us; in a ``with`` statement they do, until the end of the block."""
    return Installation()


def _route() -> None:
    """Switches on. The caller holds the lock."""
    started, was_on = time.perf_counter(), switch.on
    switch.on = True
    try:
        with HeldInterrupts():
            onediffx.offer()
            rebound = rebind(_pairs_now() | {id(other): (other, ours) for other, ours in _other_copies()})
            _routed.update(rebound)
    except BaseException:
        if not was_on:
            _restore()
        raise
    if rebound or not was_on:
        log.routed(rebound, time.perf_counter() - started)
    _tell_of_patches(_NAMES)


def _restore() -> bool:
    """Switches off. The caller holds the lock."""
    was_on, switch.on = switch.on, False
    with HeldInterrupts():
        onediffx.withdraw()
        rebound = rebind(
            {id(ours): (ours, original) for original, ours in _pairs.values()}
            | {id(other): (other, original_of(other)) for other, _ in _other_copies()}
        )
    if rebound or was_on:
        log.restored(rebound)
    _tell_of_patches(sorted(_routed))
    _routed.clear()
    return bool(rebound or was_on)


def _pairs_now() -> dict[int, tuple[Any, Any]]:
    """Every original ever met, with what stands in for it. A function is safetensors' own if its module made it."""
    for (module, name), ours in _OUR_FUNCTIONS.items():
        names = namespace(module) or {}
        original = original_of(names.get(name))
        if isinstance(original, FunctionType) and original.__globals__ is names and id(original) not in _pairs:
            _pairs[id(original)] = (original, function_stand_in(original, ours))
    return dict(_pairs)


def _other_copies() -> Iterator[tuple[Any, Any]]:
    """(stand-in, ours for the same original) where this package was loaded twice and the other copy installed."""
    ours = {id(stand_in) for _, stand_in in _pairs.values()}
    for module, name in _NAMES:
        value = (namespace(module) or {}).get(name)
        pair = _pairs.get(id(original_of(value)))
        if pair is not None and value is not pair[0] and id(value) not in ours:
            yield value, pair[1]


def _tell_of_patches(names: Iterable[tuple[str, str]]) -> None:
    """Says once which of these names hold what is neither safetensors' nor ours."""
    known = {id(value) for pair in _pairs.values() for value in pair}
    foreign = []
    for module, name in names:
        value = (namespace(module) or {}).get(name)
        if value is not None and id(value) not in known and _told.get((module, name)) is not value:
            _told[module, name] = value
            foreign.append(f"{module}.{name}")
    if foreign:
        log.patched_by_others(foreign)
