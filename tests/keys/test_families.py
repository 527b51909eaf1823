"""Family tables: user tables at run time, and what the compiler refuses."""

import pytest
import torch
from stand_ins import holding
from torch import nn

import lora_mmap
from lora_mmap.errors import PatternError
from lora_mmap.families import Family, Naming, TextEncoder, Weights, cols, compiled, key_tables, rows, same


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    """Families registered here go when the test does."""
    monkeypatch.setattr(compiled, "_families", compiled._families)
    monkeypatch.setattr(compiled, "_tables", None)


def family(*weights: Weights, name: str = "toy", **more) -> Family:
    return Family(name=name, title="Toy", weights=weights, **more)


def factors(n_rows, n_cols, rank=2):
    return torch.randn(n_rows, rank), torch.randn(rank, n_cols)


def keyed(parts, prefix=""):
    tensors = {}
    for path, (up, down) in parts.items():
        tensors[f"{prefix}{path}.lora_B.weight"], tensors[f"{prefix}{path}.lora_A.weight"] = up, down
    return tensors


def model_of(**linears: tuple[int, int]) -> nn.Module:
    """Weights of (out, in) features in float64, by their modules' dotted names (``__`` for a dot)."""
    return holding(
        {f"{name.replace('__', '.')}.weight": torch.randn(shape).double() for name, shape in linears.items()}
    )


def delta(model, tensors):
    """What composing does to each weight, and the report."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    return {name.removesuffix(".weight"): value - before[name] for name, value in model.state_dict().items()}, report


def double(pair):
    return pair[0].double() @ pair[1].double()


def test_unequal_rows_and_renamed_modules_from_a_users_table():
    lora_mmap.register_family(
        family(
            rows(
                "bell clock:3",
                native={"towers.{i}.all": "bell clock"},
                diffusers={"towers.{i}.bell": "bell", "towers.{i}.clock": "clock"},
            ),
            same(native="towers.{i}.door", diffusers="gates.{i}.wing"),
        )
    )
    model = model_of(towers__0__all=(8, 5), gates__0__wing=(4, 5))
    parts = {"towers.0.bell": factors(2, 5), "towers.0.clock": factors(6, 5), "towers.0.door": factors(4, 5)}
    changed, report = delta(model, keyed(parts, "unet."))
    expected = torch.cat([double(parts["towers.0.bell"]), double(parts["towers.0.clock"])])
    torch.testing.assert_close(changed["towers.0.all"], expected)
    torch.testing.assert_close(changed["gates.0.wing"], double(parts["towers.0.door"]))
    told = report.to_dict()
    assert told["keys"]["unet.towers.0.clock.lora_A.weight"]["targets"][0]["rows"] == [2, 8]
    assert told["adapters"][0]["family"] == "toy"


def test_a_fused_file_is_cut_for_a_split_model():
    lora_mmap.register_family(
        family(
            rows(
                "bell clock:3",
                native={"towers.{i}.all": "bell clock"},
                diffusers={"towers.{i}.bell": "bell", "towers.{i}.clock": "clock"},
            )
        )
    )
    pair = factors(8, 5)
    changed, report = delta(model_of(towers__0__bell=(2, 5), towers__0__clock=(6, 5)), keyed({"towers_0_all": pair}))
    torch.testing.assert_close(torch.cat([changed["towers.0.bell"], changed["towers.0.clock"]]), double(pair))
    targets = report.to_dict()["keys"]["towers_0_all.lora_B.weight"]["targets"]
    assert [(target["module"], target["factor_rows"]) for target in targets] == [
        ("towers.0.bell", [0, 2]),
        ("towers.0.clock", [2, 8]),
    ]


def test_columns_are_cut_and_joined():
    lora_mmap.register_family(
        family(
            cols(
                "east west:2",
                native={"towers.{i}.all": "east west"},
                diffusers={"towers.{i}.east": "east", "towers.{i}.west": "west"},
            )
        )
    )
    pair = factors(4, 6)
    changed, report = delta(model_of(towers__0__east=(4, 2), towers__0__west=(4, 4)), keyed({"towers.0.all": pair}))
    torch.testing.assert_close(torch.cat([changed["towers.0.east"], changed["towers.0.west"]], 1), double(pair))
    (east, west) = report.to_dict()["keys"]["towers.0.all.lora_A.weight"]["targets"]
    assert (east["cols"], east["factor_cols"], west["factor_cols"]) == (None, [0, 2], [2, 6])
    parts = {"towers.0.east": factors(4, 2, 3), "towers.0.west": factors(4, 4)}
    changed, report = delta(model_of(towers__0__all=(4, 6)), keyed(parts))
    torch.testing.assert_close(changed["towers.0.all"], torch.cat([double(pair) for pair in parts.values()], 1))
    assert report.to_dict()["keys"]["towers.0.west.lora_A.weight"]["targets"][0]["cols"] == [2, 6]


def test_pieces_in_another_order():
    lora_mmap.register_family(
        family(
            rows(
                "shift scale gate",
                native={"towers.{i}.all": "shift scale gate"},
                diffusers={"towers.{i}.mod": "scale gate shift"},
            )
        )
    )
    pair = factors(6, 4)
    changed, report = delta(model_of(towers__0__mod=(6, 4)), keyed({"towers.0.all": pair}))
    torch.testing.assert_close(changed["towers.0.mod"], double(pair).roll(-2, 0))
    (target,) = report.to_dict()["keys"]["towers.0.all.lora_A.weight"]["targets"]
    assert (target["rows"], target["layout"]) == (None, "reordered pieces")


def interleaving() -> Family:
    return family(
        rows(
            "a b c",
            diffusers={"towers.{i}.mod": "a b c"},
            packed={"towers.{i}.mod": "a b c interleaved"},
        ),
        namings=(Naming("packed", beside="towers.0.mark"),),
    )


def test_interleaved_rows_only_where_the_model_has_the_mark():
    lora_mmap.register_family(interleaving())
    pair = factors(6, 4)
    changed, _ = delta(model_of(towers__0__mod=(6, 4)), keyed({"towers.0.mod": pair}))
    torch.testing.assert_close(changed["towers.0.mod"], double(pair))
    changed, report = delta(model_of(towers__0__mod=(6, 4), towers__0__mark=(1, 1)), keyed({"towers.0.mod": pair}))
    torch.testing.assert_close(changed["towers.0.mod"], double(pair)[[0, 2, 4, 1, 3, 5]])
    (target,) = report.to_dict()["keys"]["towers.0.mod.lora_B.weight"]["targets"]
    assert target["layout"] == "interleaved by 3"


def test_interleaved_rows_beside_whole_ones_and_undone():
    """Two adapters on one interleaved weight, one of them of another rank; reset is exact."""
    lora_mmap.register_family(interleaving())
    model = model_of(towers__0__mod=(6, 4), towers__0__mark=(1, 1))
    before = model.towers.get_submodule("0.mod").weight.clone()
    one, two = factors(6, 4), factors(6, 4, 5)
    lora_mmap.compose(model, [(keyed({"towers.0.mod": one}), 0.5), (keyed({"towers.0.mod": two}), 2.0)])
    order = [0, 2, 4, 1, 3, 5]
    expected = before + (0.5 * double(one) + 2 * double(two))[order]
    torch.testing.assert_close(model.towers.get_submodule("0.mod").weight, expected)
    lora_mmap.reset(model)
    assert torch.equal(model.towers.get_submodule("0.mod").weight, before)


def test_shapes_tell_proportions_apart():
    """Two families cut the same names in different proportions: the shapes say which is meant, for every part."""
    lora_mmap.register_family(
        family(
            rows("q k v", native={"towers.{i}.all": "q k v"}, diffusers={f"towers.{{i}}.{x}": x for x in "qkv"}),
            name="even",
        )
    )
    lora_mmap.register_family(
        family(
            rows("q:4 k v", native={"towers.{i}.all": "q k v"}, diffusers={f"towers.{{i}}.{x}": x for x in "qkv"}),
            name="grouped",
        )
    )
    for sizes in ((4, 4, 4), (8, 2, 2)):
        parts = {f"towers.0.{name}": factors(size, 5) for name, size in zip("qkv", sizes, strict=True)}
        changed, _ = delta(model_of(towers__0__all=(12, 5)), keyed(parts))
        torch.testing.assert_close(changed["towers.0.all"], torch.cat([double(pair) for pair in parts.values()]))


def test_a_square_piece_tells_equal_names_apart():
    lora_mmap.register_family(
        family(
            rows("a b", square=True, native={"towers.{i}.all": "a b"}, diffusers={"towers.{i}.mod": "b a"}),
            rows("a b c d", square=True, native={"towers.{i}.all": "a b c d"}, diffusers={"towers.{i}.mod": "a b c d"}),
        )
    )
    for n_rows, order in ((6, [3, 4, 5, 0, 1, 2]), (12, list(range(12)))):
        pair = factors(n_rows, 3)
        changed, _ = delta(model_of(towers__0__mod=(n_rows, 3)), keyed({"towers.0.all": pair}))
        torch.testing.assert_close(changed["towers.0.mod"], double(pair)[order])


def test_what_two_modules_of_a_file_say_of_the_same_rows_is_ambiguous():
    pair = factors(4, 5)
    tensors = keyed({"towers.0.door": pair}) | keyed({"towers_0_door": pair}, "lora_unet_")
    with pytest.raises(lora_mmap.errors.AmbiguousKeyError, match=r"'towers.0.door' and 'lora_unet_towers_0_door'|same"):
        lora_mmap.compose(model_of(towers__0__door=(4, 5)), [(tensors, 1.0)])


def test_duplicates_that_a_family_knows_are_left_out():
    lora_mmap.register_family(
        family(
            rows(
                "q k",
                native={"towers.{i}.all": "q k"},
                odd={"towers.{i}.o.q": "q", "towers.{i}.o.k": "k"},
                diffusers={"towers.{i}.q": "q", "towers.{i}.k": "k"},
            ),
            namings=(Naming("odd", in_models=False),),
            duplicates=(("odd", "native"),),
        )
    )
    parts = {"towers.0.o.q": factors(4, 5), "towers.0.o.k": factors(4, 5)}
    tensors = keyed(parts) | keyed({"towers.0.all": factors(8, 5)})
    model = model_of(towers__0__all=(8, 5))
    before = model.get_submodule("towers.0.all").weight.clone()
    report = lora_mmap.compose(model, [(tensors, 1.0)])
    changed = model.get_submodule("towers.0.all").weight - before
    torch.testing.assert_close(changed, torch.cat([double(pair) for pair in parts.values()]))
    keys = report.to_dict()["keys"]
    assert keys["towers.0.all.lora_A.weight"]["outcome"] == "ignored"
    assert keys["towers.0.o.q.lora_A.weight"]["outcome"] == "applied"


def test_a_family_that_contradicts_another_is_refused_and_changes_nothing():
    before = len(key_tables().rules)
    attention = "transformer_blocks.{i}.attn."
    wrong = rows(
        "q k v",
        fused={attention + "to_qkv": "k q v"},
        diffusers={attention + f"to_{piece}": piece for piece in "qkv"},
    )
    with pytest.raises(PatternError, match="place it differently"):
        lora_mmap.register_family(family(wrong))
    assert len(key_tables().rules) == before


def test_names_are_taken_once():
    lora_mmap.register_family(family())
    with pytest.raises(PatternError, match="'toy' is registered already"):
        lora_mmap.register_family(family())


@pytest.mark.parametrize(
    ("mention", "message"),
    [
        (
            {"namings": (Naming("ntaive", in_models=False),)},
            "namings mentions 'ntaive', expected 'diffusers', 'native'",
        ),
        ({"duplicates": (("native", "difusers"),)}, "duplicates mentions 'difusers'"),
        ({"written": {"kohya": "nativ"}}, "written mentions 'nativ'"),
        ({"written": {"khoya": "native"}}, "written's dialects mentions 'khoya', expected 'comfyui'"),
        ({"widths": {"towers.{i}.dor": (5,)}}, "widths mentions 'towers.{i}.dor'"),
        ({"text_encoders": {"text_encoder": TextEncoder("klip", "clip_l")}}, "text_encoders mentions 'klip'"),
    ],
)
def test_a_slip_in_what_a_table_mentions_is_refused(mention, message):
    before = len(key_tables().rules)
    door = same(native="towers.{i}.door", diffusers="gates.{i}.wing")
    with pytest.raises(PatternError, match=message):
        lora_mmap.register_family(family(door, **mention))
    assert len(key_tables().rules) == before


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (same(native="a.{i", diffusers="b"), "never closed"),
        (same(native="a.{i}", diffusers="b.{k}"), "captures no 'k'"),
        (rows("q k", native={"a": "q v"}, diffusers={"b": "q"}), "holds 'v', expected one of"),
        (rows("q k", native={"a": "q q"}, diffusers={"b": "q"}), "expected each piece once"),
        (rows("q:0 k", native={"a": "q k"}, diffusers={"b": "q"}), "expected positive integers"),
        (rows("q:2 k", native={"a": "q k"}, diffusers={"b": "q k interleaved"}), "pieces of different sizes"),
        (rows("q k", native={"a": "q k"}, diffusers={"a": "k q"}), "written for native and for diffusers"),
        (same(odd="a.{i}.b"), "leads nowhere"),
        ((same(native="a.{i}.b", diffusers="c.{i}"), same(native="a.0.b", diffusers="d")), "both match"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(weights, message):
    before = len(key_tables().rules)
    table = weights if isinstance(weights, tuple) else (weights,)
    namings = (Naming("odd", in_models=False),) if "odd" in table[0].names else ()
    with pytest.raises(PatternError, match=message):
        lora_mmap.register_family(family(*table, namings=namings))
    assert len(key_tables().rules) == before


def test_adding_a_family_does_not_slow_the_others_down():
    """The automaton stays one table: as many steps as the key has bytes, whatever the number of rules."""
    weights = [same(native=f"family{k}.{{i}}.here", diffusers=f"family{k}.{{i}}.there") for k in range(300)]
    small = key_tables().grammar.states
    lora_mmap.register_family(family(*weights, name="many"))
    large = key_tables().grammar
    assert large.states - small < 300 * 40
    (group,) = large.classify(["family299_4_here.alpha"]).groups()
    assert [key_tables().rules[rule].pattern for rule in group[4]] == ["family299.{i}.here"]
