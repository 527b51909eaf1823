"""DoRA: the norms of a weight's rows or columns, trained beside what changes their direction."""

from __future__ import annotations

import math
from dataclasses import replace

from .formula import Magnitude
from .members import Malformed, Member, Members, floats
from .part import Part
from .recognised import title

ROWS, COLUMNS = "norm per output row", "norm per input column"


def decomposed(part: Part, members: Members) -> Part:
    """W' = magnitude * V / |V| with V = W + what ``part`` makes. The magnitude's shape tells the axis of the norm."""
    magnitude = floats(members["magnitude"], 1, 2, 3, 4, 5)
    is_peft = bool(members.of("dora_peft"))
    axis = _peft_axis(part, magnitude) if is_peft else _axis(part, magnitude)
    over = "" if part.algorithm == "lora" else f"over {title(part.algorithm)}, "
    formula = part.formula
    if formula is not None:
        inputs = magnitude.size if axis == COLUMNS else None
        formula = replace(formula, magnitude=Magnitude(magnitude.tensor, inputs, strength_inside=is_peft))
    return Part("dora", part.form, part.rank, part.scale, part.scale_source, over + axis, formula)


def _axis(part: Part, magnitude: Member) -> str:
    """``dora_scale``: [out, 1, ...] or [out] norms rows, [1, in, 1, ...] norms columns over the kernel too."""
    rows, cols = part.form
    shape = magnitude.shape
    if magnitude.size == rows == shape[0]:
        return ROWS
    inputs = magnitude.size
    if len(shape) > 1 and shape[:2] == (1, inputs) and _are_inputs(inputs, cols, len(shape)):
        return COLUMNS
    raise _misfit(magnitude, part, f"[{rows}, 1] or [1, {cols}]")


def _are_inputs(inputs: int, cols: int | None, dims: int) -> bool:
    """A convolution's columns are its input channels times the elements of its kernel, which not all factors tell."""
    return cols is None or inputs == cols or (dims > 2 and inputs > 0 and cols % inputs == 0)


def _peft_axis(part: Part, magnitude: Member) -> str:
    """PEFT norms the rows of a matrix ([out], convolutions [1, out, 1, ...]) and the columns of an embedding."""
    rows, cols = part.form
    wanted, axis = (cols, COLUMNS) if part.algorithm == "embedding" else (rows, ROWS)
    if magnitude.size != wanted or math.prod(magnitude.shape[2:]) != 1:
        raise _misfit(magnitude, part, f"[{wanted}]")
    return axis


def _misfit(magnitude: Member, part: Part, expected: str) -> Malformed:
    return Malformed(
        f"'{magnitude.name}' has shape {list(magnitude.shape)}, expected {expected} as the magnitude of a weight "
        f"{list(part.form)}"
    )
