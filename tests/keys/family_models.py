"""Small models of every naming of a family, straight from its table, and adapters for them in exact numbers."""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from stand_ins import holding
from torch import nn

from lora_mmap.families import Family, Weights
from lora_mmap.families.tables import Layout

RANK, ROWS_OF_A_PIECE = 2, 2
_BRACES = re.compile(r"\{([^}]*)\}")
_INDICES = range(12)


class Module(NamedTuple):
    """One path of a naming, with the shape of its weight."""

    path: str
    shape: tuple[int, int]


def namings(family: Family) -> list[str]:
    return list(dict.fromkeys(naming for weights in family.weights for naming in weights.names))


def in_models(family: Family, naming: str) -> bool:
    """False for what only files are named like, and for quantised models, which nothing can be fused into here."""
    known = {known.name: known for known in family.namings}.get(naming)
    return known is None or (known.in_models and not known.beside.endswith("qweight"))


def is_plain(family: Family, naming: str) -> bool:
    """True when paths alone tell this naming from the others."""
    known = {known.name: known for known in family.namings}.get(naming)
    return known is None or not (known.beside or known.infix)


def spellings(family: Family, naming: str) -> int:
    """How many ways this naming has at most to name one weight; a model or a file has one of them."""
    return max(len(_spellings(weights, naming)) for weights in family.weights if naming in weights.names)


def modules(family: Family, naming: str, others: tuple[str, ...] = (), spelling: int = 0) -> list[Module]:
    """What a model of this naming has; weights without a line for it are named as in the first of ``others``.

    Where two weights of the table have one name, they stand at different indices.
    """
    taken: dict[str, Module] = {}
    for number, weights in enumerate(family.weights):
        chosen = next((name for name in (naming, *others) if name in weights.names), None)
        if chosen is None:
            continue
        ways = _spellings(weights, chosen)
        paths = ways[spelling] if spelling < len(ways) else ways[0]
        for captures in _captures(weights):
            for shift in _INDICES:
                found = [
                    Module(_filled(path, captures, shift), _shape(weights, weights.names[chosen][path], number))
                    for path in paths
                ]
                if not any(module.path in taken for module in found):
                    taken.update({module.path: module for module in found})
                    break
    return list(taken.values())


def model(parts: list[Module]) -> nn.Module:
    return holding({f"{part.path}.weight": torch.zeros(part.shape) for part in parts})


def factors(parts: list[Module]) -> dict[Module, tuple[torch.Tensor, torch.Tensor]]:
    """Small whole numbers, so that every sum is exact: {module: (up, down)}."""
    generator = torch.Generator().manual_seed(len(parts))

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(1, 9, shape, generator=generator).float()

    return {part: (numbers(part.shape[0], RANK), numbers(RANK, part.shape[1])) for part in parts}


def _captures(weights: Weights) -> Iterator[dict[str, str]]:
    """Values for what the paths capture: index 0 everywhere, and every choice at least once."""
    patterns = [path for paths in weights.names.values() for path in paths]
    choices: dict[str, list[str]] = {}
    for body in itertools.chain.from_iterable(map(_BRACES.findall, patterns)):
        name, _, kind = body.partition(":")
        if kind:
            choices[name] = kind.split("|")
    for number in range(max(map(len, choices.values()), default=1)):
        yield {name: options[number % len(options)] for name, options in choices.items()}


def _spellings(weights: Weights, naming: str) -> list[list[str]]:
    """The paths of a naming, those together that hold a weight's pieces once."""
    ways: list[list[str]] = []
    held: list[set[str]] = []
    for path, layout in weights.names[naming].items():
        way = next((way for way, pieces in enumerate(held) if not pieces.intersection(layout.pieces)), None)
        if way is None:
            way = len(ways)
            ways.append([])
            held.append(set())
        ways[way].append(path)
        held[way].update(layout.pieces)
    return ways


def _filled(pattern: str, choices: dict[str, str], shift: int) -> str:
    """The path with these choices and index 0 everywhere, but ``shift`` for the first."""
    indices = itertools.chain([shift], itertools.repeat(0))

    def value(found: re.Match[str]) -> str:
        name = found[1].partition(":")[0]
        if name in choices:
            return choices[name]
        counters = re.findall(r"[a-z_]+", found[1])
        return str(eval(found[1], {}, {counter: next(indices) for counter in counters}))

    return _BRACES.sub(value, pattern.replace("[", "").replace("]", ""))


def _shape(weights: Weights, layout: Layout, number: int) -> tuple[int, int]:
    """No two weights of a table have as many columns (rows, where columns are cut): shapes tell equal names apart."""
    units = sum(weights.sizes[piece] for piece in layout.pieces)
    across = number + 3
    in_turn = max(layout.interleaved for paths in weights.names.values() for layout in paths.values())
    along = units * (across if weights.square else max(ROWS_OF_A_PIECE, in_turn))
    return (along, across) if weights.axis == "rows" else (across, along)
