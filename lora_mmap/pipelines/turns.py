"""The order of activation over the modules of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from .named_adapters import named_adapters
from .parts import Part

_turns = itertools.count()


def take_turns(parts: Sequence[Part], names: Iterable[str]) -> None:
    """Says that these were made active now, one after the other. What was active before is then past, also in the
    parts that none of these is for."""
    known = {part: named_adapters(part.module) for part in parts}
    turns = {name: next_turn() for name in names if any(name in one.loaded for one in known.values())}
    for part, one in known.items():
        one.turns.update((name, turn) for name, turn in turns.items() if name in one.loaded)
        if turns and not one.placed(part.state.composition.entries):
            one.forget_last()


def in_turn(parts: Sequence[Part], names: Iterable[str]) -> list[str]:
    """These, in the order in which they were made active; before them, as loaded, those that never were."""
    turns = [named_adapters(part.module).turns for part in parts]
    here = set(names)
    loaded = [name for name in loaded_names(parts) if name in here]
    return sorted(loaded, key=lambda name: max(turn.get(name, -1) for turn in turns))


def loaded_names(parts: Sequence[Part]) -> list[str]:
    """All that are loaded, in the order of loading."""
    known = [named_adapters(part.module) for part in parts]
    numbers = {name: one.numbers[name] for one in known for name in one.loaded}
    return sorted(numbers, key=numbers.__getitem__)


def next_turn() -> int:
    """Later than all that were given out before."""
    return next(_turns)


def current_strengths(parts: Sequence[Part]) -> dict[str, list[tuple[str, float]]]:
    """By part, what is active; where nothing is anywhere, what was so last; where nothing ever was, all at 1."""
    known = {part.name: named_adapters(part.module) for part in parts}
    active = {
        part.name: [(name, entry[1]) for name, entry in known[part.name].placed(part.state.composition.entries)]
        for part in parts
    }
    if any(active.values()):
        return active
    last = {name: one.last for name, one in known.items()}
    if any(last.values()):
        return last
    names = in_turn(parts, loaded_names(parts))
    return {part: [(name, 1.0) for name in names if name in one.loaded] for part, one in known.items()}
