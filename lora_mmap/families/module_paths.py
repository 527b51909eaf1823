"""Path patterns of the tables for writing: what they capture of a module path, and the path of such captures."""

from __future__ import annotations

import re
from functools import cache

from .counting import Counting, counting

_PARTS = re.compile(r"(\{[^}]*\}|\[|\])")


class PathPattern:
    """One pattern (the language is in ``csrc/keys/pattern.h``) over module paths, dotted or flattened."""

    def __init__(self, text: str) -> None:
        self._parts = [part for part in _PARTS.split(text) if part]
        self._choices: dict[str, dict[str, str]] = {}  # capture -> flattened option -> option
        self._countings: list[Counting] = []
        self._optionals = 0
        self._expression = re.compile("".join(map(self._expressed, self._parts)))

    def captures(self, path: str) -> dict[str, str] | None:
        """What ``path`` captures, choices as the pattern has them; None where it does not fit."""
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        values = {name: value for name, value in found.groupdict().items() if value is not None}
        for name in values.keys() & self._choices.keys():
            values[name] = self._choices[name][_flat(values[name])]
        for formula in self._countings:
            counters = formula.split(int(values[formula.high]))
            if counters is None:
                return None
            values |= counters
        return values

    def filled(self, captures: dict[str, str]) -> str | None:
        """The dotted path with these captures; None where no index that counts levels through stands for them."""
        text = ""
        optional = 0
        left_out = False
        for part in self._parts:
            if part == "[":
                left_out = _optional(optional) not in captures
                optional += 1
            elif part == "]":
                left_out = False
            elif not left_out:
                filled = _fill(part, captures)
                if filled is None:
                    return None
                text += filled
        return text

    def _expressed(self, part: str) -> str:
        if part == "[":
            self._optionals += 1
            return f"(?P<{_optional(self._optionals - 1)}>"
        if part == "]":
            return ")?"
        if not part.startswith("{"):
            return _either(part)
        formula = counting(part[1:-1])
        if formula is not None:
            self._countings.append(formula)
            return rf"(?P<{formula.high}>[0-9]+)"
        name, colon, kind = part[1:-1].partition(":")
        if not colon:
            return rf"(?P<{name}>[0-9]+)"
        if kind == "*":
            return rf"(?P<{name}>[^.]+)"
        options = kind.split("|")
        self._choices[name] = {_flat(option): option for option in options}
        return rf"(?P<{name}>{'|'.join(map(_either, options))})"


@cache
def path_pattern(text: str) -> PathPattern:
    """The pattern of a table's path; each is compiled once."""
    return PathPattern(text)


def _fill(part: str, captures: dict[str, str]) -> str | None:
    if not part.startswith("{"):
        return part
    formula = counting(part[1:-1])
    return formula.join(captures) if formula is not None else captures[part[1:-1].partition(":")[0]]


def _optional(number: int) -> str:
    return f"_optional{number}"


def _flat(text: str) -> str:
    return text.replace(".", "_")


def _either(text: str) -> str:
    """A regular expression for ``text``, whose dots trainers write as underscores."""
    return re.escape(text).replace(r"\.", "[._]")
