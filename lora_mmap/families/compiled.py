"""From tables to one native automaton, and back from its rule numbers to what the tables say."""

from __future__ import annotations

from .. import _C
from ..errors import PatternError
from ..sharing import ForkSafeLock
from .known import FAMILIES
from .prefixes import PREFIXES
from .rules import flattened, make_rules
from .soundness import require_known_names, require_unambiguous
from .suffixes import SUFFIXES
from .tables import Family


class Tables:
    """All tables as they stood at one moment, compiled. Immutable, shared by every adapter opened meanwhile."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self.families = {family.name: family for family in families}
        self.widths = {
            family.name: {flattened(path): widths for path, widths in (family.widths or {}).items()}
            for family in families
        }
        self.suffixes = SUFFIXES
        self.prefixes = PREFIXES
        for family in families:
            require_known_names(family, self.families)
        self.rules = make_rules(families)
        self.grammar = _C.Grammar(
            [(suffix.pattern, suffix.role, len(suffix.keep)) for suffix in SUFFIXES],
            [prefix.pattern for prefix in PREFIXES],
            [
                (rule.pattern, [(list(way.paths), way.beside, way.infix, way.is_whole) for way in rule.alternatives])
                for rule in self.rules
            ],
        )
        require_unambiguous(self.rules, self.grammar.overlaps())


_lock = ForkSafeLock()
_families: tuple[Family, ...] = FAMILIES
_tables: Tables | None = None


def key_tables() -> Tables:
    """The compiled tables; compiled on first use and again after :func:`register_family`."""
    global _tables
    with _lock.native:
        if _tables is None:
            _tables = Tables(_families)
        return _tables


def register_family(family: Family) -> None:
    """Adds a family table for this process; adapters opened or composed from now on know it.

    Raises :class:`~lora_mmap.errors.PatternError` when a pattern is malformed, when the name is taken, or when the
    table contradicts itself or another; the tables then stay as they were.
    """
    global _families, _tables
    with _lock.native:
        if any(known.name == family.name for known in _families):
            raise PatternError(f"[register_family] a family named {family.name!r} is registered already")
        grown = (*_families, family)
        _families, _tables = grown, Tables(grown)
