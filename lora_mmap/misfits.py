"""Saying why tensors have no place in the modules that their name leads to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .adapter import Adapter
from .algorithms.recognised import Form
from .model_weights import ModelWeights
from .outcomes import AMBIGUOUS, MISFIT, UNSUPPORTED, Landing, Outcome
from .pairing import Pair
from .placing import Target


def misfit(adapter: Adapter, pair: Pair, way: Sequence[Target], weights: ModelWeights) -> Outcome:
    """The outcome of a pair whose shapes fit none of the ways in which its name can be meant, said of the first."""
    for target in way:
        look = weights.look(target.number)
        if isinstance(look, str) and look:
            return Outcome(UNSUPPORTED, f"module '{target.module}': {look}", wholes(way))
    names, shapes = adapter.source.names, adapter.source.shapes
    form = (pair.rows, pair.cols)
    wanted = " and ".join(expected(target, form, "weight", weights) for target in way)
    return Outcome(
        MISFIT,
        f"'{names[pair.up]}' {list(shapes[pair.up])} x '{names[pair.down]}' {list(shapes[pair.down])} make "
        f"[{pair.rows}, {pair.cols}], expected {wanted}; is the adapter made for another model?",
        wholes(way),
    )


def expected(target: Target, form: Form, parameter: str, weights: ModelWeights) -> str:
    """The matrix that a module would take for one of its parameters, where one of ``form`` does not fit."""
    extent = weights.extent(target.number, parameter) or (0, 0)
    text = f"[{extent[0]}, {extent[1]}] as module '{target.module}' has"
    placement = target.placement
    if not placement.is_whole:
        units = f"{sum(run.size for run in placement.runs)} of {placement.target_units}"
        text += f", {placement.source_units} parts for {units} parts of its {placement.axis}"
    elif extent[0] == form[0] and form[1] is not None and extent[1] < form[1]:
        text += f" (a control adapter needs it widened to {form[1]} columns first)"
    return text


def lacking(way: Sequence[Target], parameter: str, form: tuple[int | None, int | None], weights: ModelWeights) -> str:
    """A parameter of ``form`` that the modules of ``way`` do not have, and what they have in its place."""
    there = [weights.extent(target.number, parameter) for target in way]
    shapes = " and ".join(str(list(extent)) for extent in there if extent)
    return f"{parameter} {list(form)}" + (f", expected {shapes}" if shapes else "")


def several(ways: Iterable[Sequence[Landing]]) -> Outcome:
    """The outcome of a pair that fits more than one way, naming each."""
    named = " or ".join(
        ", ".join(f"'{landing.module}'" + (f" rows {list(landing.rows)}" if landing.rows else "") for landing in way)
        for way in ways
    )
    return Outcome(AMBIGUOUS, f"it fits several places: {named}")


def wholes(way: Iterable[Target]) -> tuple[Landing, ...]:
    """The modules of a way, all of each."""
    return tuple(Landing(target.module) for target in way)
