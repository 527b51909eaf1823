"""The ``pipeline-memory`` case on a tiny UNet: what it says was read, listed and given back."""

import gc
import os

import pytest
import torch
from tiny_unet import tiny_unet

from bench.cases import pipeline_memory
from bench.memory import anonymous_nbytes, open_files, peak_anonymous
from bench.registry import Settings

MIB = 1 << 20


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products in two threads wait for each other."""
    ambient = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(ambient)


@pytest.fixture(autouse=True)
def no_old_garbage():
    """The case collects garbage at every step: what the tests before left is not looked through again."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_nothing_is_read_twice_and_everything_is_given_back(tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    monkeypatch.setattr(pipeline_memory, "sdxl_unet", tiny_unet)
    monkeypatch.setenv("LORA_MMAP_CACHE_SIZE", "1")
    monkeypatch.delenv("LORA_MMAP_CACHE_BYTES", raising=False)
    result = pipeline_memory.run(Settings(quick=True, repeats=None, warm_allocator=False, scratch=tmp_path))
    assert {goal.statement: goal.measured for goal in result.goals if not goal.passed} == {}
    ours = result.facts["lora_mmap"]
    first, second = ours["first time"], ours["second time"]
    assert [one["headers_parsed"] for one in first] == [1, 1, 1]
    assert [one["headers_parsed"] for one in second] == [0, 0, 0]
    assert all(0 < two["bytes_read"] < one["bytes_read"] for one, two in zip(first, second, strict=True))
    assert [one["bytes_read"] for one in ours["second time, LORA_MMAP_CACHE_BYTES for all"]] == [0, 0, 0]
    assert all(one["retained"] > 0 and one["restore"] > 0 for one in first)
    together = ours["all at once"]
    assert together[2]["retained"] == 3 * together[0]["retained"]
    assert len(result.facts["diffusers+peft"]["all at once"]) == 2
    assert len(result.facts["onediffx-arithmetic"]["in a row"]) == 2
    assert list(tmp_path.iterdir()) == []
    assert os.environ["LORA_MMAP_CACHE_SIZE"] == "1"
    assert "LORA_MMAP_CACHE_BYTES" not in os.environ


def test_a_peak_of_anonymous_memory_is_seen_after_it_is_gone():
    before = anonymous_nbytes()
    with peak_anonymous() as seen:
        torch.ones(64 * MIB, dtype=torch.uint8).sum()
    assert seen[0] - before > 32 * MIB


def test_a_file_that_is_open_is_counted(tmp_path):
    before = open_files()
    with open(tmp_path / "file", "w"):
        assert open_files() == before + 1
    assert open_files() == before
