"""What the parameters of a model are called in a checkpoint: as in the model, or with one prefix more or less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .model_index import ModelIndex


class Prefix(NamedTuple):
    """Names in the file begin with ``added`` where those in the model begin with ``removed``."""

    added: str = ""
    removed: str = ""

    def apply(self, name: str) -> str | None:
        """The name in the file, or None for one that does not begin so."""
        return self.added + name[len(self.removed) :] if name.startswith(self.removed) else None


def common_prefix(model_names: Collection[str], file_names: Collection[str]) -> Prefix:
    """The prefix under which most of the model's names are in the file, such as ``model.diffusion_model.``; none where
    no other is better."""
    names, files = frozenset(model_names), frozenset(file_names)
    hits = Counter({Prefix(): len(names & files)})
    hits.update(Prefix(added=prefix) for prefix in _prefixes(files, names))
    hits.update(Prefix(removed=prefix) for prefix in _prefixes(names, files))
    return max(hits, key=lambda prefix: (hits[prefix], -len(prefix.added) - len(prefix.removed), prefix))


def _prefixes(longer: Collection[str], shorter: Collection[str]) -> Iterator[str]:
    """What stands, up to a dot, before the names of ``shorter`` in those of ``longer``, once for each."""
    for name in longer:
        dot = name.find(".")
        while dot >= 0:
            if name[dot + 1 :] in shorter:
                yield name[: dot + 1]
            dot = name.find(".", dot + 1)


def parameter_names(index: ModelIndex) -> Iterator[str]:
    """``<module path>.<parameter>`` of whatever adapters may change, by canonical names."""
    for entry in (*index.weights, *index.others):
        yield entry.name if entry.is_parameter else f"{entry.name}.{entry.key}"
