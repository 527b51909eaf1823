"""The report tells the truth, in all its forms; checking touches nothing; logging costs nothing when off."""

import copy
import json
import logging

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed, write
from torch import nn

import lora_mmap
from lora_mmap.errors import AdapterError, UnmatchedKeysError

REQUIRED = {"adapters", "modules", "bytes_read", "files_opened", "keys_classified", "stages", "restore", "keys"}


@pytest.fixture
def mixed(small):
    """Keys of every outcome: applied, absent, unsupported, ignored and unknown."""
    tensors = keyed(adapter_for(small, ["first", "conv"]), alpha=8)
    tensors |= keyed({"blocks.7.gone": factors(6, 5)})
    tensors["second.oft_blocks"] = torch.zeros(1, 2, 2)
    tensors["epoch"] = tensors["unheard_of"] = torch.ones(1)
    return tensors


def outcomes(report):
    return {key: entry["outcome"] for key, entry in report.to_dict()["keys"].items()}


def test_outcomes_of_keys(small, mixed):
    report = lora_mmap.compose(small, [(mixed, 1.0)])
    assert outcomes(report) == {
        "first.lora_A.weight": "applied",
        "first.lora_B.weight": "applied",
        "first.alpha": "applied",
        "conv.lora_A.weight": "applied",
        "conv.lora_B.weight": "applied",
        "conv.alpha": "applied",
        "blocks.7.gone.lora_A.weight": "absent",
        "blocks.7.gone.lora_B.weight": "absent",
        "second.oft_blocks": "unsupported",
        "epoch": "ignored",
        "unheard_of": "unknown",
    }
    for entry in report.to_dict()["keys"].values():
        assert entry.keys() == {"outcome", "targets", "reason"}
        assert bool(entry["targets"]) is (entry["outcome"] == "applied")
        assert bool(entry["reason"]) is (entry["outcome"] != "applied")
    (target,) = report.to_dict()["keys"]["conv.lora_B.weight"]["targets"]
    assert target == {"module": "conv", "role": "up", "rows": None, "cols": None, "layout": None}


def test_to_dict_is_json_with_the_promised_keys(small, mixed, tmp_path):
    path = write(tmp_path / "a.safetensors", {key: value.clone() for key, value in mixed.items()})
    told = lora_mmap.compose(small, [(path, 0.5), (mixed, 2.0)]).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told.keys() >= REQUIRED
    assert all(seconds >= 0 for seconds in told["stages"].values())
    assert set(told["restore"]) == {"journal"}
    costs = [module["restore"] for module in told["modules"].values()]
    assert {cost["tier"] for cost in costs} == {"journal"}
    assert told["restore"]["journal"] == {"modules": 2, "bytes": sum(cost["bytes"] for cost in costs)}
    assert told["memory"]["restore"] == told["restore"]["journal"]["bytes"] > 0
    assert [term["scale"] for term in told["modules"]["first"]["terms"]] == [0.5 * 8 / 4, 2.0 * 8 / 4]
    assert {term["alpha"] for term in told["modules"]["first"]["terms"]} == {"alpha key"}
    assert told["adapters"][0]["label"] == str(path)


def test_truth_value_and_counts(small, mixed):
    report = lora_mmap.compose(small, [(mixed, 1.0)])
    assert report
    assert report.applied == 2
    assert report.unmatched == ["blocks.7.gone"]
    assert not lora_mmap.compose(small, [])


def test_a_key_of_two_adapters_keeps_both_outcomes(small):
    """A skipped second adapter with the same keys does not hide that the first was applied."""
    tensors = keyed(adapter_for(small, ["first"]))
    with lora_mmap.open_adapter(tensors) as adapter:
        report = lora_mmap.compose(small, [(adapter, 1.0), (tensors, 0.0)])
    assert set(outcomes(report).values()) == {"applied"}


def test_assumed_alpha_is_said(small):
    report = lora_mmap.check(small, keyed(adapter_for(small, ["first"])))
    assert "assumed" in report.to_dict()["modules"]["first"]["terms"][0]["alpha"]
    assert "assumed" in str(report)


def test_the_card_is_a_box_that_says_what_happened(small, mixed, tmp_path):
    path = write(tmp_path / "style.safetensors", {key: value.clone() for key, value in mixed.items()})
    card = str(lora_mmap.compose(small, [(path, 0.5)]))
    lines = card.splitlines()
    assert lines[0][0] + lines[0][-1] == "╭╮"
    assert lines[-1][0] + lines[-1][-1] == "╰╯"
    assert len({len(line) for line in lines}) == 1
    assert all(line[0] == line[-1] == "│" for line in lines[1:-1])
    for word in (
        "style.safetensors",
        "2 applied",
        "1 absent",
        "1 unsupported",
        "1 unknown",
        "blocks.7.gone",
        "OFT",
        "x 0.5",
    ):
        assert word in card, word


def test_nearest_names_of_an_unmatched_module(small):
    report = lora_mmap.check(small, keyed({"frist": factors(37, 23)}))
    (unmatched,) = report.to_dict()["unmatched"]
    assert unmatched["module"] == "frist"
    assert unmatched["nearest"][0] == "first"


def test_check_touches_nothing_and_tells_the_same(small, mixed, sha256):
    twin = copy.deepcopy(small)
    before = sha256(small)
    version = small.first.weight._version
    told = lora_mmap.check(small, [(mixed, 0.5)])
    assert sha256(small) == before
    assert small.first.weight._version == version
    assert lora_mmap.reset(small) is False
    done = lora_mmap.compose(twin, [(mixed, 0.5)])
    assert told
    modules = done.to_dict()["modules"]
    for module in modules.values():
        assert module.pop("restore")["tier"] == "journal"
    assert told.to_dict()["modules"] == {name: {**module, "restore": None} for name, module in modules.items()}
    assert told.to_dict()["dry_run"] is True
    assert "would be applied" in str(told)
    # DESIGN: the words for a key are the same before and after.
    assert outcomes(told) == outcomes(done)


def test_check_leaves_a_composition_alone(small, sha256):
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"], seed=1)), 1.0)])
    composed = sha256(small)
    lora_mmap.check(small, keyed(adapter_for(small, ["first"], seed=2)))
    assert sha256(small) == composed
    assert lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed
    assert lora_mmap.reset(small) is True


def test_check_reports_what_compose_would_refuse(small, sha256):
    tensors = keyed(adapter_for(small, ["first", "second"]))
    tensors["first.lora_A.weight"] = torch.zeros(4, 99)
    report = lora_mmap.check(small, tensors)
    entry = report.to_dict()["keys"]["first.lora_A.weight"]
    assert entry["outcome"] != "applied"
    assert "[4, 99]" in entry["reason"]
    with pytest.raises(AdapterError):
        lora_mmap.check(small, tensors, strict=True)


@pytest.mark.parametrize("key", ["blocks.7.gone.lora_A.weight", "second.oft_blocks", "unheard_of"])
def test_strict_raises_for_any_homeless_key(small, mixed, key, sha256):
    before = sha256(small)
    tensors = keyed(adapter_for(small, ["first"]))
    assert lora_mmap.check(small, tensors, strict=True)
    tensors |= {k: v for k, v in mixed.items() if k.rsplit(".", 1)[0].startswith(key.rsplit(".", 2)[0])}
    for call in (lora_mmap.compose, lora_mmap.check):
        with pytest.raises(UnmatchedKeysError, match=key.split(".lora")[0].split(".oft")[0]):
            call(small, [(tensors, 1.0)], strict=True)
    assert sha256(small) == before


def test_describe_needs_no_model(tmp_path, small):
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(small, ["first"]), alpha=8))
    with lora_mmap.open_adapter(path) as adapter:
        told = adapter.describe()
    assert json.loads(json.dumps(told))
    assert {entry["outcome"] for entry in told["keys"].values()} == {"recognised"}
    (target,) = told["keys"]["first.lora_A.weight"]["targets"]
    assert (target["module"], target["role"]) == ("first", "down")


def test_an_adapter_reads_its_tensors(tmp_path, small):
    tensors = keyed(adapter_for(small, ["first"], dtype=torch.bfloat16), alpha=8)
    path = write(tmp_path / "a.safetensors", tensors)
    with lora_mmap.open_adapter(path) as adapter:
        assert sorted(adapter.keys()) == sorted(tensors)
        for name, value in tensors.items():
            assert torch.equal(adapter.tensor(name), value)
        with pytest.raises(KeyError, match="nothing"):
            adapter.tensor("nothing")
    with pytest.raises(lora_mmap.errors.ClosedError):
        adapter.tensor("first.alpha")


def test_info_carries_detection_and_card(small, tmp_path, caplog, mixed):
    path = write(tmp_path / "style.safetensors", {key: value.clone() for key, value in mixed.items()})
    with caplog.at_level(logging.INFO, "lora_mmap"):
        report = lora_mmap.compose(small, [(path, 1.0)])
    text = [record.getMessage() for record in caplog.records]
    assert any("style.safetensors" in line and "lora_A/lora_B" in line for line in text)
    assert any(str(report) in line for line in text)
    assert not any(line.startswith("first:") for line in text)


def test_a_line_per_module_on_request(small, caplog, mixed, monkeypatch):
    monkeypatch.setenv("nunchaku_log", "1")
    with caplog.at_level(logging.INFO, "lora_mmap"):
        lora_mmap.compose(small, [(mixed, 1.0)])
    text = [record.getMessage() for record in caplog.records]
    for stem in ("first", "conv", "blocks.7.gone", "second"):
        assert sum(line.startswith(f"{stem}: ") for line in text) == 1, stem


def test_nothing_is_formatted_when_nobody_listens(small, monkeypatch, mixed):
    """No card, no dictionary, no dialect is computed with the log at WARNING."""

    def forbidden(*_):
        raise AssertionError("formatted for nobody")

    from lora_mmap import report
    from lora_mmap.adapter import Adapter

    monkeypatch.setenv("nunchaku_log", "1")
    monkeypatch.setattr(report, "card", forbidden)
    monkeypatch.setattr(report.Report, "to_dict", forbidden)
    monkeypatch.setattr(Adapter, "dialect", property(forbidden))
    logging.getLogger("lora_mmap").setLevel(logging.WARNING)
    try:
        assert lora_mmap.compose(small, [(mixed, 1.0)])
    finally:
        logging.getLogger("lora_mmap").setLevel(logging.NOTSET)


def test_the_root_logger_is_left_alone(small):
    handlers = list(logging.getLogger().handlers)
    lora_mmap.compose(small, [(keyed(adapter_for(small, ["first"])), 1.0)])
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("lora_mmap").propagate


class Empty(nn.Module):
    pass


def test_a_model_without_weights():
    report = lora_mmap.compose(Empty(), [(keyed({"a": factors(3, 3)}), 1.0)])
    assert not report
    assert report.unmatched == ["a"]
