"""What the names of an adapter lead to in one model."""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import native_types
from .adapter import Adapter
from .families.placement import WHOLE
from .model_index import ModelIndex
from .outcomes import ABSENT, AMBIGUOUS, UNKNOWN, Outcome
from .placing import Target
from .sharing import lazy

# How the native core answers: the module that has the name itself, or everything it found.
Resolution = int | native_types.Resolution

_NUMBERS = re.compile(r"\d+")


class Names:
    """The resolutions of one adapter's groups against one model's index."""

    def __init__(self, adapter: Adapter, index: ModelIndex) -> None:
        self.adapter = adapter
        self.index = index
        self.resolutions: list[Resolution] = adapter.classification.resolve(index.names)

    def ways(self, group: int, found: Resolution) -> list[list[Target]] | Outcome:
        """The ways in which a group's name can be meant, each the modules it takes; or why there is none."""
        modules = self.index.module_names
        if isinstance(found, int):
            return [[Target(found, modules[found], WHOLE)]]
        _, several, choices = found
        if several:
            names = ", ".join(f"'{modules[module]}'" for module in several)
            return Outcome(AMBIGUOUS, f"it fits several modules: {names}")
        if not choices:
            return self._missing(group)
        rules = self.adapter.tables.rules
        ways = (
            [
                Target(number, modules[number], placement)
                for number, placement in zip(numbers, rules[rule].alternatives[way].placements, strict=True)
            ]
            for rule, way, numbers in choices
        )
        # Families may say the same of a name in patterns of their own.
        return list({tuple(way): way for way in ways}.values())

    def child(self, group: int, forms: Iterable[str]) -> Resolution | None:
        """The resolution of a group whose tensors are all for one parameter of the module's own, by that one's name;
        None where the model has no parameter of this name."""
        own = [parameter for parameter in forms if parameter not in ("weight", "bias")]
        if len(own) != 1:
            return None
        key = f"{self.adapter.groups[group].stem}.{own[0]}.diff"
        found = self.adapter.tables.grammar.classify([key]).resolve(self.index.names)[0]
        return found if isinstance(found, int) or found[1] or found[2] else None

    def _missing(self, group: int) -> Outcome:
        """Known names that this model lacks, or names that nobody knows."""
        entry = self.adapter.groups[group]
        if entry.rules:
            meaning = self.adapter.tables.rules[entry.rules[0]]
            title = self.adapter.tables.families[meaning.namings[0][0]].title
            return Outcome(ABSENT, f"no module of the model has this name, which {title} has")
        for offset, _ in entry.starts:
            if _shape_of(entry.stem[offset:]) in self._shapes:
                return Outcome(ABSENT, "the model has such modules, but none with these numbers")
        if self.adapter.family is None:
            return Outcome(ABSENT, "no module of the model has this name")
        title = self.adapter.tables.families[self.adapter.family].title
        return Outcome(UNKNOWN, f"neither the model nor {title} has a module of this name")

    @lazy
    def _shapes(self) -> set[str]:
        return {_shape_of(name) for name in self.index.module_names}


def _shape_of(name: str) -> str:
    return _NUMBERS.sub("0", name.replace(".", "_"))
