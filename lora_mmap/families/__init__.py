"""Key tables: suffixes, prefixes and one file per model family, compiled into one native automaton."""

from .compiled import register_family, tables
from .tables import Family, Prefix, Rows, Same, Suffix

__all__ = ["Family", "Prefix", "Rows", "Same", "Suffix", "register_family", "tables"]
