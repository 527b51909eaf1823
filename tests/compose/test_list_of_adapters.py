"""What the list may hold: an adapter twice or under two names, a strength of nothing, a dict that changes later."""

import copy

import pytest
from adapter_tensors import adapter_for, keyed, write
from composed_weights import LINEARS, assert_terms

import lora_mmap


@pytest.mark.parametrize("source", ["path", "dict", "adapter"])
def test_the_same_adapter_twice_sums_and_is_read_once(small, tmp_path, source):
    pristine = copy.deepcopy(small)
    pairs = adapter_for(small, LINEARS)
    path = write(tmp_path / "a.safetensors", keyed(pairs))
    with lora_mmap.open_adapter(path) as adapter:
        entry = {"path": path, "dict": keyed(pairs), "adapter": adapter}[source]
        report = lora_mmap.compose(small, [(entry, 0.5), (entry, 0.25)])
    terms = {f"{m}.weight": [(*pair, 0.5), (*pair, 0.25)] for m, pair in pairs.items()}
    assert_terms(small, pristine, terms)
    assert report.files_opened == (1 if source == "path" else 0)
    if source == "path":
        assert report.bytes_read <= path.stat().st_size
        assert report.keys_classified == 4


@pytest.mark.parametrize("alias", ["relative", "symlink", "folder", "hardlink"])
def test_one_file_under_two_names_is_read_once(small, tmp_path, monkeypatch, alias):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "adapter_model.safetensors", keyed(adapter_for(small, LINEARS)))
    other = {"relative": "./adapter_model.safetensors", "symlink": tmp_path / "link.safetensors", "folder": tmp_path}
    if alias == "symlink":
        other[alias].symlink_to(path)
    if alias == "hardlink":
        other[alias] = tmp_path / "hard.safetensors"
        other[alias].hardlink_to(path)
    report = lora_mmap.compose(small, [(path, 0.5), (other[alias], 0.25)])
    assert report.files_opened == 1
    assert report.bytes_read <= path.stat().st_size


@pytest.mark.parametrize("strength", [0, 0.0, -0.0, 1e-6, -9.9e-6])
def test_negligible_strengths_are_skipped_unread(small, tmp_path, strength, sha256):
    before = sha256(small)
    report = lora_mmap.compose(small, [(tmp_path / "does not exist.safetensors", strength)])
    assert not report
    assert sha256(small) == before


def test_strengths_at_the_limit_are_applied(small):
    pairs = adapter_for(small, LINEARS, size=10.0)
    assert lora_mmap.compose(small, [(keyed(pairs), 1e-5)])
    assert lora_mmap.compose(small, [(keyed(pairs), -1e-5)])


def test_a_dict_changed_by_its_owner_afterwards(small, sha256):
    """Dict entries are copied: set_lora_strength_v2 works on what was composed."""
    tensors = keyed(adapter_for(small, LINEARS))
    lora_mmap.compose(small, [(tensors, 1.0)])
    composed = sha256(small)
    for tensor in tensors.values():
        tensor.fill_(9.0)
    lora_mmap.set_lora_strength_v2(small, 0.5)
    lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed
