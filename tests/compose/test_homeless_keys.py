"""Adapters of another model: a report that says so, an error where the caller is strict."""

import pytest
from adapter_tensors import factors, keyed, write

import lora_mmap
from lora_mmap.errors import UnmatchedKeysError


def test_a_model_without_matches(model, tmp_path):
    path = write(tmp_path / "other.safetensors", keyed({"blocks.0.attn.first": factors(8, 8)}))
    with pytest.raises(UnmatchedKeysError, match=r"blocks\.0\.attn\.first"):
        lora_mmap.compose(model, [(path, 1.0)], strict=True)
    report = lora_mmap.check(model, path)
    assert not report
    assert report.unmatched == ["blocks.0.attn.first"]
    assert "blocks.0.attn.first" in str(report)


def test_no_match_is_a_false_report_and_a_warning(small, sha256, caplog):
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed({"blocks.0.frist": factors(8, 8)}), 1.0)])
    assert not report
    assert report.to_dict()["keys"]["blocks.0.frist.lora_A.weight"]["outcome"] == "absent"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert sha256(small) == before


def test_a_checkpoint_instead_of_an_adapter(small, tmp_path, sha256, caplog):
    """The model's own weights are a safetensors file too: every key's report calls it that, and a warning says so."""
    path = write(tmp_path / "model.safetensors", dict(small.state_dict()))
    before = sha256(small)
    report = lora_mmap.compose(small, [(path, 1.0)])
    assert not report
    outcomes = {entry["outcome"] for entry in report.to_dict()["keys"].values()}
    assert outcomes == {"unsupported"}
    assert len(report.to_dict()["keys"]) == len(small.state_dict())
    assert sha256(small) == before
    with pytest.raises(UnmatchedKeysError, match="full checkpoint"):
        lora_mmap.compose(small, [(path, 1.0)], strict=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
