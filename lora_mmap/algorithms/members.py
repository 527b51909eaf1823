"""The tensors of one group by their role, and how they are held against each other."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..adapter import Adapter
from ..families.tables import Suffix
from ..tensor_source import FACTOR_DTYPES


class Malformed(Exception):
    """The group's tensors do not make an adapter of any kind; the message names them."""


class Member(NamedTuple):
    """One tensor of a group; prints as its name and shape."""

    tensor: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    suffix: Suffix

    def __str__(self) -> str:
        return f"'{self.name}' {list(self.shape)}"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def flat(self) -> tuple[int, int]:
        """Rows and columns of the matrix it is when everything after its first dimension is flattened."""
        return self.shape[0], math.prod(self.shape[1:])


class Members:
    """The tensors of one group. Every role is there once; whatever is a factor is a float."""

    def __init__(self, adapter: Adapter, members: tuple[tuple[int, int], ...]) -> None:
        source, suffixes = adapter.source, adapter.tables.suffixes
        self.all = [
            Member(tensor, source.names[tensor], source.shapes[tensor], source.dtypes[tensor], suffixes[suffix])
            for suffix, tensor in members
        ]
        self._by_role: dict[str, Member] = {}
        for member in self.all:
            self._by_role.setdefault(member.suffix.role, member)

    def reject_twins(self) -> None:
        """Raises where two spellings of one role are side by side."""
        for member in self.all:
            twin = self._by_role[member.suffix.role]
            if twin is not member:
                raise Malformed(f"'{twin.name}' and '{member.name}' are both its {member.suffix.role} factor")

    def get(self, role: str) -> Member | None:
        return self._by_role.get(role)

    def of(self, algorithm: str) -> list[Member]:
        """Those that the suffix table gives to an algorithm."""
        return [member for member in self.all if member.suffix.algorithm == algorithm]

    def factor(self, role: str, *dims: int) -> Member:
        """The tensor of a role, which must be there: a float of one of the given numbers of dimensions."""
        member = self._by_role.get(role)
        if member is None:
            raise Malformed(f"'{self._spokesman.name}' has no {role} beside it")
        return floats(member, *dims)

    def without_factors(self) -> Malformed:
        """What is wrong with tensors that belong beside factors, and there are none."""
        return Malformed(f"'{self._spokesman.name}' has neither a down nor an up factor beside it")

    @property
    def _spokesman(self) -> Member:
        """Whose name tells most of what the group would be: not an alpha, where there is something else."""
        return next((member for member in self.all if member.suffix.algorithm), self.all[0])

    def __contains__(self, role: str) -> bool:
        return role in self._by_role

    def __getitem__(self, role: str) -> Member:
        return self._by_role[role]


def floats(member: Member, *dims: int) -> Member:
    """The member, if it has one of these numbers of dimensions and a dtype that can be calculated with."""
    if member.dtype not in FACTOR_DTYPES:
        expected = ", ".join(sorted(FACTOR_DTYPES))
        raise Malformed(f"'{member.name}' has dtype {member.dtype}, expected one of {expected}")
    if len(member.shape) not in dims:
        expected = f"{dims[0]} to {dims[-1]}" if len(dims) > 2 else " or ".join(map(str, dims))
        raise Malformed(f"'{member.name}' has shape {list(member.shape)}, expected {expected} dimensions")
    return member


def same(what: str, one: Member, size: int, other: Member, other_size: int) -> int:
    """The size that two tensors must agree on."""
    if size != other_size or size < 1:
        raise Malformed(
            f"{one} has {what} {size} and {other} has {what} {other_size}, expected the same {what} of at least 1"
        )
    return size


def has_shape(member: Member, shape: tuple[int, ...], beside: Member) -> Member:
    """The member, if its shape is what ``beside`` asks for."""
    if member.shape != shape:
        raise Malformed(f"'{member.name}' has shape {list(member.shape)}, expected {list(shape)} beside {beside}")
    return member
