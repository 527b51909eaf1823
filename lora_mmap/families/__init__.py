"""Key tables: suffixes, prefixes and one file per model family, compiled into one native automaton."""

from .compiled import key_tables, register_family
from .tables import Family, Prefix, Rows, Same, Suffix

__all__ = ["Family", "Prefix", "Rows", "Same", "Suffix", "key_tables", "register_family"]
