"""The automaton against Python's re: the same verdict on random keys for random tables."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_mmap import _C

PIECES = ["a", "ab", "b", "block", "0", "1", "{i}", "{k}", "{n:*}", ".", ".", "_", "qkv", "[.x]", "{s:img|im|g}"]


def to_regex(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("{s:"):
            out, at = out + "(?:img|im|g)", at + rest.index("}") + 1
        elif rest.startswith("{n:"):
            out, at = out + "[^.]+(?![^.])", at + rest.index("}") + 1
        elif rest.startswith("{"):
            out, at = out + "[0-9]+", at + rest.index("}") + 1
        elif rest.startswith("["):
            out, at = out + "(?:[._]x)?", at + rest.index("]") + 1
        else:
            out, at = out + ("[._]" if rest[0] == "." else re.escape(rest[0])), at + 1
    return out


def is_sound(pattern: str) -> bool:
    """What the language allows: each capture once, no index before a digit or a capture, no segment before text."""
    if any(pattern.count(name) > 1 for name in ("{i}", "{k}", "{n:", "{s:")):
        return False
    flat = [re.sub(r"\[.x\]", choice, pattern) for choice in ("", ".x")]
    if any(re.search(r"\{[ik]\}(\{[ikn]|[0-9])|\{n:\*\}[^.]", text) for text in flat):
        return False
    return re.sub(r"\[.x\]", "", pattern) != ""


patterns = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join).filter(is_sound)
keys = st.lists(
    st.sampled_from(["a", "b", "ab", "block", "0", "1", "12", ".", "_", "img", "im", "g", "qkv", ".x"]), max_size=8
)


@settings(max_examples=400, deadline=None)
@given(st.lists(patterns, min_size=1, max_size=8, unique=True), st.lists(keys.map("".join), min_size=1, max_size=8))
def test_same_verdict(table, stems):
    grammar = _C.Grammar([("=", "up", 0)], [], [(pattern, []) for pattern in table])
    names = [stem + "=" for stem in stems if stem and not stem.endswith("_")]
    groups = {stem: rules for stem, _, _, _, rules in grammar.classify(names).groups()}
    for stem in {name[:-1] for name in names}:
        expected = tuple(i for i, pattern in enumerate(table) if re.fullmatch(to_regex(pattern), stem))
        assert groups[stem] == expected, (stem, [table[i] for i in expected])
