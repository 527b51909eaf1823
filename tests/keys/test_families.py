"""Family tables: user tables at run time, and what the compiler refuses."""

import pytest
import torch
from torch import nn

import lora_mmap
from lora_mmap.errors import PatternError
from lora_mmap.families import Family, Rows, Same, compiled, key_tables


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    """Families registered here go when the test does."""
    monkeypatch.setattr(compiled, "_families", compiled._families)
    monkeypatch.setattr(compiled, "_tables", None)


def family(*layouts, name="toy"):
    return Family(name=name, title="Toy", marks=("towers.{i}.bell",), layouts=layouts)


def pair(rows, cols, rank=2):
    return torch.randn(rows, rank), torch.randn(rank, cols)


def test_unequal_rows_and_renamed_modules_from_a_users_table():
    lora_mmap.register_family(
        family(
            Rows("towers.{i}.all", ("towers.{i}.bell", "towers.{i}.clock"), sizes=(1, 3)),
            Same(("towers.{i}.door", "gates.{i}.wing")),
        )
    )
    model = nn.Module()
    model.towers = nn.ModuleList([nn.Module()])
    model.towers[0].all = nn.Linear(5, 8, bias=False)
    model.gates = nn.ModuleList([nn.Module()])
    model.gates[0].wing = nn.Linear(5, 4, bias=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = {"towers.0.bell": pair(2, 5), "towers.0.clock": pair(6, 5), "towers.0.door": pair(4, 5)}
    tensors = {}
    for path, (up, down) in parts.items():
        tensors[f"unet.{path}.lora_B.weight"], tensors[f"unet.{path}.lora_A.weight"] = up, down
    report = lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    delta = model.towers[0].all.weight - before["towers.0.all.weight"]
    expected = torch.cat(
        [parts["towers.0.bell"][0] @ parts["towers.0.bell"][1], parts["towers.0.clock"][0] @ parts["towers.0.clock"][1]]
    )
    torch.testing.assert_close(delta, expected)
    up, down = parts["towers.0.door"]
    torch.testing.assert_close(model.gates[0].wing.weight - before["gates.0.wing.weight"], up @ down)
    keys = report.to_dict()["keys"]
    assert keys["unet.towers.0.clock.lora_A.weight"]["targets"][0]["rows"] == [2, 8]
    assert report.to_dict()["adapters"][0]["family"] == "toy"


def test_a_fused_file_is_cut_for_a_split_model():
    lora_mmap.register_family(family(Rows("towers.{i}.all", ("towers.{i}.bell", "towers.{i}.clock"), sizes=(1, 3))))
    model = nn.Module()
    model.towers = nn.ModuleList([nn.Module()])
    model.towers[0].bell, model.towers[0].clock = nn.Linear(5, 2, bias=False), nn.Linear(5, 6, bias=False)
    before = torch.cat([model.towers[0].bell.weight, model.towers[0].clock.weight]).detach().clone()
    up, down = pair(8, 5)
    lora_mmap.compose(model, [({"towers_0_all.lora_up.weight": up, "towers_0_all.lora_down.weight": down}, 1.0)])
    after = torch.cat([model.towers[0].bell.weight, model.towers[0].clock.weight]).detach()
    torch.testing.assert_close(after - before, up @ down)


def test_a_family_that_contradicts_another_is_refused_and_changes_nothing():
    before = len(key_tables().rules)
    wrong = Rows("transformer_blocks.{i}.attn.to_qkv", tuple(f"transformer_blocks.{{i}}.attn.to_{x}" for x in "kqv"))
    with pytest.raises(PatternError, match="place it differently"):
        lora_mmap.register_family(family(wrong))
    assert len(key_tables().rules) == before


def test_names_are_taken_once():
    lora_mmap.register_family(family())
    with pytest.raises(PatternError, match="'toy' is registered already"):
        lora_mmap.register_family(family())


def test_malformed_tables_are_refused():
    with pytest.raises(PatternError, match="never closed"):
        lora_mmap.register_family(family(Same(("a.{i", "b"))))
    with pytest.raises(ValueError, match="2 parts but 3 sizes"):
        Rows("a", ("b", "c"), sizes=(1, 2, 3))


def test_adding_a_family_does_not_slow_the_others_down():
    """The automaton stays one table: as many steps as the key has bytes, whatever the number of rules."""
    rules = [Same((f"family{k}.{{i}}.here", f"family{k}.{{i}}.there")) for k in range(300)]
    small = key_tables().grammar.states
    lora_mmap.register_family(family(*rules, name="many"))
    large = key_tables().grammar
    assert large.states - small < 300 * 40
    (group,) = large.classify(["family299_4_here.alpha"]).groups()
    assert [key_tables().rules[rule].pattern for rule in group[4]] == ["family299.{i}.here"]
