"""The pattern language, through a grammar with one rule: what matches, what is captured, what is refused."""

import pytest

from lora_mmap import _C
from lora_mmap.errors import PatternError


def resolve(pattern: str, target: str, stem: str, model: str) -> bool:
    """True when ``pattern -> target`` leads from ``stem`` to the module ``model``."""
    grammar = _C.Grammar([(".up", "up", 0)], [], [(pattern, [([target], "", "", False)])])
    (found,) = grammar.classify([stem + ".up"]).resolve(_C.ModelNames([model], [True]))
    return isinstance(found, tuple) and found[2] == ((0, 0, (0,)),)


@pytest.mark.parametrize(
    ("pattern", "target", "stem", "model"),
    [
        ("blocks.{i}.q", "b.{i}.qkv", "blocks.12.q", "b.12.qkv"),
        ("blocks.{i}.q", "b.{i}.qkv", "blocks_12_q", "b.12.qkv"),
        ("blocks.{i}.self_attn.q", "b.{i}.qkv", "blocks_3.self_attn.q", "b.3.qkv"),
        ("{side:img|txt}_mlp.{i}", "{side}.net.{i}", "txt_mlp_0", "txt.net.0"),
        ("{kind:a|ab|abc}.x", "{kind}.y", "ab.x", "ab.y"),
        ("a[.extra].b", "hit", "a.b", "hit"),
        ("a[.extra].b", "hit", "a_extra_b", "hit"),
        ("a[.{n}].b", "hit", "a.7.b", "hit"),
        ("net.0.proj", "hit", "net_0_proj", "hit"),
        ("{name:*}.w", "m.{name}", "some_name.w", "m.some_name"),
        ("x.{i}.0.{k}", "y.{k}.{i}", "x.1.0.2", "y.2.1"),
        ("in.{i*3+j+1}.0.q", "down.{i}.{j}.q", "in_8_0_q", "down.2.1.q"),
        ("down.{i}.{j}.q", "in.{i*3+j+1}.0.q", "down_2_1_q", "in.8.0.q"),
        ("in.{i*3+3}.op", "down.{i}.op", "in.6.op", "down.1.op"),
        ("down.{i}.op", "in.{i*3+3}.op", "down.1.op", "in.6.op"),
        ("out.{i*3+j}.q", "up.{i}.{j}.q", "out.0.q", "up.0.0.q"),
    ],
)
def test_what_matches(pattern, target, stem, model):
    assert resolve(pattern, target, stem, model)


@pytest.mark.parametrize(
    ("pattern", "stem"),
    [
        ("blocks.{i}.q", "blocks.x.q"),
        ("blocks.{i}.q", "blocks..q"),
        ("blocks.{i}.q", "blocks.12.qq"),
        ("blocks.{i}.q", "xblocks.12.q"),
        ("blocks.{i}.q", "blocks-12.q"),
        ("a_b", "a.b"),
        ("{side:img|txt}_mlp", "vid_mlp"),
        ("{name:*}.w", "two.names.w"),
        ("{name:*}.w", ".w"),
    ],
)
def test_what_does_not(pattern, stem):
    assert not resolve(pattern, "hit", stem, "hit")


@pytest.mark.parametrize(
    ("pattern", "target", "stem", "model"),
    [
        ("in.{i*3+j+1}.q", "down.{i}.{j}.q", "in.0.q", "down.0.0.q"),  # the offset itself is out of reach
        ("in.{i*3+3}.op", "down.{i}.op", "in.7.op", "down.1.op"),  # something is left over
        ("down.{i}.{j}.q", "in.{i*3+j+1}.q", "down.0.3.q", "in.4.q"),  # that is down.1.0
        ("in.{i*3+j+1}.q", "down.{i}.{j}.q", "in.08.q", "down.2.1.q"),
        ("in.{i*3+j+1}.q", "down.{i}.{j}.q", f"in.{2**64 + 8}.q", "down.2.1.q"),
        ("down.{i}.{j}.q", "in.{i*3+j+1}.q", f"down.{2**64 + 2}.1.q", "in.8.q"),
    ],
)
def test_an_index_that_no_counters_make(pattern, target, stem, model):
    assert not resolve(pattern, target, stem, model)


def test_literal_digits_beside_an_index():
    """Both rules start alike; the automaton has to keep both ways open."""
    grammar = _C.Grammar(
        [(".up", "up", 0)],
        [],
        [("net.0.proj", [(["first"], "", "", False)]), ("net.{i}.out", [(["out.{i}"], "", "", False)])],
    )
    names = _C.ModelNames(["first", "out.0", "out.10"], [True] * 3)
    results = grammar.classify(["net.0.proj.up", "net.0.out.up", "net.10.out.up"]).resolve(names)
    assert [found[2][0][2] for found in results] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a.{i", "never closed"),
        ("a.i}", "closes nothing"),
        ("a[b", "never closed"),
        ("a]b", "closes nothing"),
        ("a[b[c]]", "does not nest"),
        ("{}", "needs a name"),
        ("{i}.{i}", "twice"),
        ("{i}{k}", "side by side"),
        ("{i}0", "digit follows"),
        ("{x:*}y", "end at '.'"),
        ("{i*3+i}", "twice"),
        ("{i*3+j}{k}", "side by side"),
        ("{i*1+j}", "no index of two counters"),
        ("{i*3+}", "no index of two counters"),
        ("{*3+j}", "no index of two counters"),
        ("{i*3+j+k}", "no index of two counters"),
        ("{i*99999}", "no index of two counters"),
        ("", "empty text"),
        ("[a]", "empty text"),
        ("[a]" * 18 + "b", "more than 1024 branches"),
        ("".join(f"{{{x}:1|2|3|4|5|6|7|8}}" for x in "abcdef"), "more than 1024 branches"),
    ],
)
def test_malformed_patterns_say_why(pattern, reason):
    with pytest.raises(PatternError, match=reason) as error:
        _C.Grammar([], [], [(pattern, [])])
    assert pattern in str(error.value)


def test_a_template_needs_captures_that_exist():
    with pytest.raises(PatternError, match="captures no 'k'"):
        _C.Grammar([], [], [("a.{i}", [(["b.{k}"], "", "", False)])])


def test_a_suffix_listed_twice():
    with pytest.raises(PatternError, match=r"'\.up' is listed twice"):
        _C.Grammar([(".up", "up", 0), (".up", "up", 0)], [], [])


@pytest.mark.parametrize("tables", [([("{i*3}.up", "up", 0)], []), ([(".up", "up", 0)], ["in.{i*3+j}."])])
def test_only_rules_count_through_levels(tables):
    with pytest.raises(PatternError, match="counts through levels, which only paths of modules do"):
        _C.Grammar(*tables, [])


def test_a_segment_ends_at_a_dot_where_other_dots_may_be_underscores():
    """What the automaton lists is what the pattern matches: '_' is part of a segment."""
    grammar = _C.Grammar([(".up", "up", 0)], [], [("a.{name:*}.b.c", [])])
    groups = grammar.classify([f"a{i}x_y{j}b{k}c.up" for i in "._" for j in "._" for k in "._"]).groups()
    assert [stem for stem, _, _, _, rules in groups if rules] == ["a.x_y.b.c", "a.x_y.b_c", "a_x_y.b.c", "a_x_y.b_c"]


def test_tables_whose_captures_combine_in_every_way_are_refused():
    n = 16
    rules = [".".join(str(i) if i == k else f"{{x{i}:*}}" for i in range(n)) for k in range(n)]
    with pytest.raises(PatternError, match="more than 65536 states"):
        _C.Grammar([], [], [(rule, []) for rule in rules])
