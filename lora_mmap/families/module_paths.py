"""Path patterns of the tables for writing: what they capture of a module path, and the path of such captures."""

from __future__ import annotations

import re
from functools import cache

_CAPTURE = re.compile(r"\{(\w+):?([^}]*)\}")
_OPTIONAL = re.compile(r"\[[^\]]*\]")


class PathPattern:
    """One pattern (the language is in ``csrc/keys/pattern.h``) over module paths, dotted or flattened."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._choices: dict[str, dict[str, str]] = {}  # capture -> flattened option -> option
        parts = re.split(r"(\{[^}]*\}|\[|\])", text)
        self._expression = re.compile("".join(self._part(part) for part in parts))

    def captures(self, path: str) -> dict[str, str] | None:
        """What ``path`` captures, choices as the pattern has them; None where it does not fit."""
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        values = {name: value for name, value in found.groupdict().items() if value is not None}
        for name, options in self._choices.items():
            if name in values:
                values[name] = options[_flat(values[name])]
        return values

    def filled(self, captures: dict[str, str]) -> str:
        """The dotted path with these captures, without what is optional."""
        return _CAPTURE.sub(lambda found: captures[found[1]], _OPTIONAL.sub("", self._text))

    def _part(self, text: str) -> str:
        capture = _CAPTURE.fullmatch(text)
        if capture is None:
            return {"[": "(?:", "]": ")?"}.get(text, _either(text))
        name, kind = capture.groups()
        if text == f"{{{name}}}":
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


def _flat(text: str) -> str:
    return text.replace(".", "_")


def _either(text: str) -> str:
    """A regular expression for ``text``, whose dots trainers write as underscores."""
    return re.escape(text).replace(r"\.", "[._]")
