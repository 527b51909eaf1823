"""Classification alone: what 100,000 keys in many dialects are, with the tables that ship and with twice as many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lora_mmap.families.compiled import Tables
from lora_mmap.families.known import FAMILIES
from lora_mmap.families.tables import Family, Weights

from ..key_names import in_files, shuffled
from ..peers import sequential_regex
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import Contender, Samples, interleave

_KEYS = 100_000
_GOAL_MICROSECONDS = 0.3
_GOAL_RATIO = 50
_GOAL_GROWTH = 1.1
_DOUBLED = f"{OURS}, families doubled"
_PEER = "sequential-regex"


@case("keys")
def run(settings: Settings) -> CaseResult:
    keys = in_files(_KEYS // 10 if settings.quick else _KEYS)
    ships, doubled = Tables(FAMILIES), Tables((*FAMILIES, *map(_twin, FAMILIES)))
    result = CaseResult(
        "keys",
        f"Classify {len(keys)} keys in kohya, PEFT, diffusers, ComfyUI and LyCORIS spelling, given as a list of "
        "strings: the ending, the prefixes, the module path by every family's rules, and the tensors of a module "
        f"together. {OURS} does it in one pass.",
        notes=[
            f"{len(FAMILIES)} families: {_size(ships)}; doubled: {_size(doubled)}",
            "families doubled: every family again with each of its paths one word longer, so that the rules part "
            "where the measured keys end",
            "in file order: file after file, a module's tensors side by side; shuffled: no two neighbours belong "
            "together, which no file does and which makes every lookup a miss of the cache",
            f"{_PEER}: {sequential_regex.PATHS} expressions for the path, tried in turn, written here in the style of "
            "loaders in Python; it knows fewer dialects and resolves nothing",
        ],
    )
    _require_work_done(keys, ships, doubled)
    for order, listed in (("in file order", keys), ("shuffled", shuffled(keys))):
        samples = _measure(settings, listed, ships, doubled)
        result.add(order, samples, {})
        _judge(result, order, samples, len(listed))
    return result


def _require_work_done(keys: list[str], *tables: Tables) -> None:
    for table in tables:
        found = table.grammar.classify(keys)
        if found.unknown or sum(bool(group[4]) for group in found.groups()) < len(found) // 2:
            raise AssertionError(f"{len(found.unknown)} keys unknown, or most paths: there is nothing to measure")
    lost = len(sequential_regex.classify(keys).get("", ()))
    if lost:
        raise AssertionError(f"{_PEER} does not know {lost} of {len(keys)} keys")


def _measure(settings: Settings, keys: list[str], ships: Tables, doubled: Tables) -> dict[str, Samples]:
    def ours(tables: Tables) -> Callable[[], dict[str, float]]:
        def classify() -> dict[str, float]:
            tables.grammar.classify(keys)
            return {}

        return classify

    def regex() -> dict[str, float]:
        sequential_regex.classify(keys)
        return {}

    contenders = [Contender(OURS, ours(ships)), Contender(_DOUBLED, ours(doubled)), Contender(_PEER, regex)]
    return interleave(contenders, settings.rounds(full=15, quick=5))


def _judge(result: CaseResult, order: str, samples: dict[str, Samples], count: int) -> None:
    seconds = {name: found.spread().median for name, found in samples.items()}
    per_key = {name: value / count * 1e6 for name, value in seconds.items()}
    ratio, growth = seconds[_PEER] / seconds[OURS], seconds[_DOUBLED] / seconds[OURS]
    result.goals += [
        Goal(
            f"{order}: <= {_GOAL_MICROSECONDS} us per key",
            f"{per_key[OURS]:.3f} us",
            per_key[OURS] <= _GOAL_MICROSECONDS,
        ),
        Goal(f"{order}: >= {_GOAL_RATIO} x faster than {_PEER}", f"{ratio:.0f} x", ratio >= _GOAL_RATIO),
        Goal(f"{order}: <= {_GOAL_GROWTH} x with twice the families", f"{growth:.2f} x", growth <= _GOAL_GROWTH),
    ]
    result.summary += [(f"{order}: {name}", f"{microseconds:.3f} us per key") for name, microseconds in per_key.items()]
    result.facts.setdefault("microseconds_per_key", {})[order] = per_key


def _size(tables: Tables) -> str:
    grammar = tables.grammar
    return f"{len(tables.rules)} rules, {grammar.states} states, {grammar.nbytes / 2**20:.1f} MiB"


def _twin(family: Family) -> Family:
    """The family under another name, each of its paths one word longer."""
    return replace(
        family,
        name=f"{family.name}_twin",
        weights=tuple(map(_longer, family.weights)),
        namings=tuple(replace(naming, beside=naming.beside and f"{naming.beside}.twin") for naming in family.namings),
        widths=None,
    )


def _longer(weights: Weights) -> Weights:
    return replace(
        weights,
        names={
            naming: {f"{path}.twin": layout for path, layout in paths.items()}
            for naming, paths in weights.names.items()
        },
    )
