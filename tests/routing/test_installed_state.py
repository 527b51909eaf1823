"""install, uninstall and with blocks in every order; other people's patches; the log."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
from routed_loading import ORIGINALS, assert_same_tensors, holders

import lora_mmap
from lora_mmap.routing import installation

LOAD_FILE = ("safetensors.torch", "load_file")  # as a global name of this module it would be routed too


def routed():
    """As the names tell it, which must be what installed() says."""
    names = safetensors.torch.load_file is not ORIGINALS[LOAD_FILE]
    assert bool(lora_mmap.installed()) is names
    return names


def test_install_is_idempotent():
    first = lora_mmap.install()
    held = safetensors.torch.load_file
    second = lora_mmap.install()
    assert first
    assert second
    assert type(first) is type(second) is type(lora_mmap.installed()) is lora_mmap.Installation
    assert safetensors.torch.load_file is held
    assert repr(first) == "<lora_mmap installed>"
    assert lora_mmap.uninstall() is True
    assert not routed()
    assert not first
    assert repr(first) == "<lora_mmap not installed>"
    assert lora_mmap.uninstall() is False


def test_install_again_finds_those_who_were_missed():
    lora_mmap.install()
    module = sys.modules["safetensors.torch"]
    module.load_file = ORIGINALS[LOAD_FILE]
    lora_mmap.install()
    assert module.load_file is not ORIGINALS[LOAD_FILE]
    lora_mmap.uninstall()
    assert module.load_file is ORIGINALS[LOAD_FILE]


def test_with_installed():
    assert not routed()
    with lora_mmap.installed() as state:
        assert routed()
        assert state
    assert not routed()


def test_with_install():
    with lora_mmap.install() as state:
        assert routed()
        assert state
    assert not routed()
    guard = lora_mmap.install()
    assert routed()
    with guard:
        assert routed()
    assert not routed()
    with guard:  # used up: an ordinary one
        assert routed()
    assert not routed()


def test_blocks_within_an_installation_keep_it():
    lora_mmap.install()
    with lora_mmap.installed():
        with lora_mmap.install():
            assert routed()
        assert routed()
    assert routed()
    lora_mmap.uninstall()


def test_nested_blocks_and_one_object_used_twice():
    state = lora_mmap.installed()
    with state:
        with state, lora_mmap.installed():
            assert routed()
        assert routed()
    assert not routed()


def test_exceptions_pass_and_undo():
    with pytest.raises(ZeroDivisionError), lora_mmap.installed():
        1 / 0  # noqa: B018
    assert not routed()
    lora_mmap.install()
    with pytest.raises(ZeroDivisionError), lora_mmap.installed():
        1 / 0  # noqa: B018
    assert routed()
    lora_mmap.uninstall()


def test_block_puts_back_what_was_before_whatever_happened_inside():
    with lora_mmap.installed():
        lora_mmap.uninstall()
        assert not routed()
    assert not routed()
    with lora_mmap.installed():
        lora_mmap.install()
    assert not routed()
    lora_mmap.install()
    with lora_mmap.installed():
        lora_mmap.uninstall()
        with lora_mmap.installed():
            assert routed()
        assert not routed()
    assert routed()
    lora_mmap.uninstall()


@pytest.mark.parametrize("first_out", [0, 1])
def test_overlapping_blocks(first_out):
    """As two threads would: the block that goes on keeps its installation, the last puts back what was before both."""
    blocks = [lora_mmap.installed(), lora_mmap.installed()]
    for block in blocks:
        block.__enter__()
    blocks.pop(first_out).__exit__(None, None, None)
    assert routed()
    blocks.pop().__exit__(None, None, None)
    assert not routed()


def test_an_installation_made_inside_a_block_that_ended():
    block = lora_mmap.installed()
    block.__enter__()
    late = lora_mmap.install()
    block.__exit__(None, None, None)
    assert not routed()
    with late:
        assert routed()
    assert not routed()


def test_threads(path):
    theirs = safetensors.torch.load_file(path)
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        for turn in range(12):
            if number == 0:
                lora_mmap.install()
                lora_mmap.uninstall()
            with lora_mmap.installed() if turn % 2 else lora_mmap.install():
                assert_same_tensors(safetensors.torch.load_file(path), theirs)
            assert_same_tensors(safetensors.torch.load_file(path), theirs)

    held = holders()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    lora_mmap.uninstall()
    assert holders() == held
    assert not installation._blocks


def test_a_block_of_each_thread_is_routed_all_along(path):
    start = threading.Barrier(6)

    def work(_):
        start.wait()
        for _ in range(10):
            with lora_mmap.installed():
                assert lora_mmap.installed()
                assert safetensors.torch.load_file is not ORIGINALS[LOAD_FILE]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert not routed()


def test_a_failed_installation_leaves_nothing(monkeypatch):
    held = holders()
    rebind = installation.rebind

    def run_out_of_memory(replacements):
        monkeypatch.setattr(installation, "rebind", rebind)
        rebind(replacements)
        raise MemoryError

    monkeypatch.setattr(installation, "rebind", run_out_of_memory)
    with pytest.raises(MemoryError), lora_mmap.installed():
        pytest.fail("the block was entered")
    assert not routed()
    assert holders() == held
    assert not installation._blocks


def test_a_block_that_is_left_in_the_middle_of_a_scan(monkeypatch):
    """As the block of a generator that the collector finds just then: on the same thread, with the lock held."""
    rebind = installation.rebind

    def collect(replacements):
        monkeypatch.setattr(installation, "rebind", rebind)
        with lora_mmap.installed():
            pass
        return rebind(replacements)

    monkeypatch.setattr(installation, "rebind", collect)
    with lora_mmap.installed():
        assert routed()
    assert not routed()


def test_somebody_elses_later_patch_is_left_alone(monkeypatch, log_lines):
    def theirs(filename):
        return filename

    lora_mmap.install()
    ours = safetensors.torch.load_file
    safetensors.torch.load_file = theirs
    log_lines()
    lora_mmap.install()
    assert safetensors.torch.load_file is theirs
    lora_mmap.uninstall()
    assert safetensors.torch.load_file is theirs
    assert safetensors.torch.load is ORIGINALS["safetensors.torch", "load"]
    lora_mmap.uninstall()
    warnings = [text for level, text in log_lines() if level == "WARNING"]
    assert warnings == ["patched by somebody else, left alone: safetensors.torch.load_file"]
    safetensors.torch.load_file = ours  # they undo theirs, with what they found
    lora_mmap.uninstall()
    assert safetensors.torch.load_file is ORIGINALS[LOAD_FILE]


def test_somebody_elses_earlier_patch_is_left_alone(path, monkeypatch, log_lines):
    def theirs(filename):
        return ORIGINALS[LOAD_FILE](filename)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "load_file", theirs)
        for _ in range(2):
            with lora_mmap.installed():
                assert safetensors.torch.load_file is theirs
            assert safetensors.torch.load_file is theirs
    warnings = [text for level, text in log_lines() if level == "WARNING"]
    assert warnings == ["patched by somebody else, left alone: safetensors.torch.load_file"]


def test_one_line_each_way(log_lines):
    with lora_mmap.installed():
        with lora_mmap.installed():
            lora_mmap.install()
        ((level, text),) = log_lines()
        assert level == "INFO"
        assert text.startswith("safetensors' loaders routed through lora_mmap: ")
    ((level, text),) = log_lines()
    assert level == "INFO"
    assert text.startswith("safetensors' loaders given back: ")
    lora_mmap.uninstall()
    assert log_lines() == []
