"""What objects need to be shared between threads and with forked processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload
from weakref import WeakSet

T = TypeVar("T")


class ForkSafeLock:
    """A lock that a forked child finds free, whoever held it in the parent: that thread does not exist in the child.

    Used as ``with lock.native:``, the interpreter's own lock. A Python ``__enter__`` around it could be left by a
    KeyboardInterrupt between taking the lock and returning, and nobody would ever give it back.

    What it guards must be valid, or absent, at every moment. ``make`` is threading.Lock or threading.RLock.
    """

    __slots__ = ("__weakref__", "_make", "native")

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self.native = make()
        _locks.add(self)

    @staticmethod
    def renew_all() -> None:
        for lock in list(_locks):
            lock.native = lock._make()


_locks: WeakSet[ForkSafeLock] = WeakSet()
os.register_at_fork(after_in_child=ForkSafeLock.renew_all)


class lazy(Generic[T]):
    """``functools.cached_property`` without the lock that it has before Python 3.12, which a fork may leave held.

    Two threads may both compute the value, so it must be the same each time.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[T] | T:
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value
