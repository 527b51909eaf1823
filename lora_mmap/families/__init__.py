"""Key tables: suffixes, prefixes and one file per model family, compiled into one native automaton."""

from .compiled import key_tables, register_family
from .tables import Family, Naming, Prefix, Suffix, TextEncoder, Weights, cols, rows, same
from .writing import Written, spell

__all__ = [
    "Family",
    "Naming",
    "Prefix",
    "Suffix",
    "TextEncoder",
    "Weights",
    "Written",
    "cols",
    "key_tables",
    "register_family",
    "rows",
    "same",
    "spell",
]
