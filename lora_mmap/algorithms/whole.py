"""Parameters that are added to, or replaced, as a whole."""

from __future__ import annotations

import math

from .formula import Formula, whole
from .members import Malformed, Member, Members, floats, same
from .part import Part
from .recognised import Form
from .scaling import GroupScale

ADDED, REPLACED = "added as it is", "replaces the parameter, whatever the strength"


def form(member: Member) -> Form:
    """The matrix that a parameter is, flattened after its first dimension; a vector is one column."""
    floats(member, 1, 2, 3, 4, 5)
    return member.flat


def full(members: Members, scale: GroupScale) -> Part:
    """.diff, in the shape of the weight; w_norm of a normalisation."""
    difference = members["diff"]
    return added(difference)


def added(difference: Member) -> Part:
    """What is added to a parameter, in its shape."""
    shape = form(difference)
    return Part(difference.suffix.algorithm, shape, None, 1.0, ADDED, formula=_formula(difference, replaces=False))


def replaced(members: Members, scale: GroupScale) -> Part:
    """set_weight, and the .scale of a normalisation in BFL's control LoRAs."""
    value = members["set"]
    return Part("set", form(value), detail=REPLACED, formula=_formula(value, replaces=True))


def _formula(values: Member, replaces: bool) -> Formula:
    matrix = whole(values.tensor, values.flat[1])
    return Formula(1.0, matrix, replaces=replaces, as_stored=len(values.shape) == 2, kernel=values.shape[2:])


def reshaped(members: Members, scale: GroupScale) -> Part:
    """reshape_weight holds the shape that the weight is padded to with zeros before anything is added."""
    shape = members["reshape"]
    if len(shape.shape) != 1 or not shape.size:
        raise Malformed(f"'{shape.name}' has shape {list(shape.shape)}, expected one number per dimension")
    return Part("reshape", (None, None), detail="pads the weight")


def bias(members: Members, weight: Part | None) -> Part | None:
    """What changes the module's bias, [out], as many as ``weight`` has rows where its tensors tell."""
    found = _bias(members, weight)
    if found is None:
        return None
    member, part = found
    rows, cols = weight.form if weight is not None else (None, None)
    # What lies as the module stores it may be transposed.
    other = cols if weight is not None and weight.formula is not None and weight.formula.as_stored else rows
    if rows is not None and part.form[0] is not None and part.form[0] not in (rows, other):
        raise Malformed(f"'{member.name}' has shape {list(member.shape)}, expected [{rows}] as its weight has rows")
    return part


def _bias(members: Members, weight: Part | None) -> tuple[Member, Part] | None:
    for role, algorithm in (("up_bias", "lora_bias"), ("diff_bias", ""), ("whole_bias", "whole")):
        member = members.get(role)
        if member is None:
            continue
        size: Form = (math.prod(floats(member, 1).shape), 1)
        if role == "up_bias":
            if weight is None:
                raise members.without_factors()
            formula = None if weight.scale is None else Formula(weight.scale, whole(member.tensor, 1))
            return member, Part(algorithm, size, None, weight.scale, weight.scale_source, formula=formula)
        if role == "diff_bias":
            return member, added(member)
        return member, Part(algorithm, size, detail=REPLACED)
    return _sparse_bias(members, weight)


def _sparse_bias(members: Members, weight: Part | None) -> tuple[Member, Part] | None:
    """LyCORIS: bias_values [n] at bias_indices [dims, n] of a bias whose shape is in bias_size."""
    present = members.of("sparse_bias")
    if not present:
        return None
    for role in ("bias_indices", "bias_values", "bias_size"):
        if role not in members:
            raise Malformed(f"'{present[0].name}' has no {role} beside it")
    indices, values = members["bias_indices"], members.factor("bias_values", 1)
    if not indices.shape:
        raise Malformed(f"'{indices.name}' has shape [], expected [1, {values.size}]")
    same("entries", indices, indices.shape[-1], values, values.size)
    scale, source = (weight.scale, weight.scale_source) if weight else (None, "")
    return values, Part("sparse_bias", (None, 1), None, scale, source)
