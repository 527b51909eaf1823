"""The right to use an open adapter, until it is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .adapter import Adapter


class Lease:
    """``is_fresh`` where the adapter was opened for it. Gives the adapter back when it dies, at the latest."""

    def __init__(self, adapter: Adapter, give_back: Callable[[Lease], None], is_fresh: bool = True) -> None:
        self.adapter = adapter
        self.is_fresh = is_fresh
        self._give_back: Callable[[Lease], None] | None = give_back

    @classmethod
    def alone(cls, adapter: Adapter) -> Lease:
        """On an adapter that nobody else knows of: it is closed when given back."""
        return cls(adapter, lambda _: adapter.close())

    def give_back(self) -> None:
        """Says that this one needs the adapter no more; twice is fine."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self)

    def __del__(self) -> None:
        self.give_back()


def give_back(leases: Iterable[Lease]) -> None:
    """All of them."""
    for lease in leases:
        lease.give_back()
