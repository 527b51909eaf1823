"""What only shows while a composition is under way: rolled back to the exact bytes before, still usable."""

import copy
import os
import signal

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write

import lora_mmap
from lora_mmap import _C, change, host_site, staging, transaction
from lora_mmap.errors import ReadError

MODULES = ["first", "second", "conv"]


@pytest.fixture
def windows(monkeypatch):
    """Every weight becomes a window of its own, so that there is something to roll back."""
    monkeypatch.setattr(staging, "WINDOW_NBYTES", 1)


@pytest.fixture(params=["pristine", "composed"])
def model(request, small, sha256, windows, monkeypatch):
    """As in conftest: bytes before = bytes after, the old composition and the pristine weights still there."""
    small = small.to(torch.bfloat16)
    pristine = sha256(small)
    if request.param == "composed":
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["first", "point"], seed=5)), 0.7)])
    now = sha256(small)
    yield small
    monkeypatch.undo()
    assert sha256(small) == now, "the weights changed"
    if request.param == "composed":
        lora_mmap.set_lora_strength_v2(small, 1.0)
        assert sha256(small) == now, "the old composition cannot be repeated"
    assert lora_mmap.compose(small, [(keyed(adapter_for(small, MODULES, seed=8)), 1.0)])
    lora_mmap.reset(small)
    assert sha256(small) == pristine, "the pristine weights are lost"


@pytest.fixture
def path(model, tmp_path):
    return write(tmp_path / "adapter.safetensors", keyed(adapter_for(model, MODULES, 16, seed=6), alpha=3))


def on_call(monkeypatch, owner, name, number, action, after=False):
    """Runs ``action`` before (or after) the ``number``-th call of a function."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) != number:
            return original(*args, **kwargs)
        if not after:
            action()
        result = original(*args, **kwargs)
        if after:
            action()
        return result

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def raiser(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize("tier", ["auto", "none"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (staging.HostStream, "load", False),
        (staging.HostStream, "load", True),
        (host_site.HostSite, "_prepare", False),
        (host_site.HostSite, "_prepare", True),
        (_C, "step", False),
        (_C, "step", True),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_stage_that_fails_in_the_middle(model, path, monkeypatch, owner, name, after, error, tier):
    calls = on_call(monkeypatch, owner, name, 2, raiser(error), after)
    with pytest.raises(error):
        lora_mmap.compose(model, [(path, 1.0)], restore=tier)
    assert len(calls) >= 2  # what takes it back passes some of them too


@pytest.mark.parametrize("name", ["load", "check_unchanged"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_real_ctrl_c(model, path, monkeypatch, name, number):
    on_call(monkeypatch, staging.HostStream, name, number, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        lora_mmap.compose(model, [(path, 1.0)])


@pytest.mark.parametrize("moment", ["commit", "report"])
@pytest.mark.parametrize("state", ["pristine", "composed"])
def test_too_late_to_stop(small, tmp_path, monkeypatch, sha256, state, moment):
    """An interrupt once the weights are written: all as before or all composed, never a mixture, and usable."""
    from lora_mmap import log

    pristine, twin = sha256(small), copy.deepcopy(small)
    path = write(tmp_path / "adapter.safetensors", keyed(adapter_for(small, MODULES, seed=6)))
    lora_mmap.compose(twin, [(path, 1.0)])
    if state == "composed":
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["first", "point"], seed=5)), 0.7)])
    allowed = {sha256(small), sha256(twin)}
    with monkeypatch.context() as patch:
        if moment == "commit":
            on_call(patch, change.Change, "_commit", 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        else:
            on_call(patch, log, "report", 1, raiser(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lora_mmap.compose(small, [(path, 1.0)])
    now = sha256(small)
    assert now in allowed, "a mixture of two compositions"
    lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == now
    lora_mmap.reset(small)
    assert sha256(small) == pristine


def test_commit_that_fails(model, path, monkeypatch):
    on_call(monkeypatch, transaction.Transaction, "restore_left", 1, raiser(MemoryError))
    with pytest.raises(MemoryError):
        lora_mmap.compose(model, [(path, 1.0)])


def test_ctrl_c_while_resetting(small, monkeypatch, sha256):
    pristine = sha256(small)
    lora_mmap.compose(small, [(keyed(adapter_for(small, MODULES)), 1.0)])
    composed = sha256(small)
    with monkeypatch.context() as patch:
        on_call(patch, _C, "step", 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            lora_mmap.reset(small)
    assert sha256(small) == composed
    assert lora_mmap.reset(small)
    assert sha256(small) == pristine


@pytest.mark.parametrize("number", [1, 2, 3])
def test_truncated_while_being_read(model, path, monkeypatch, number):
    size = path.stat().st_size
    on_call(monkeypatch, staging.HostStream, "load", number, lambda: os.truncate(path, size // 3))
    with pytest.raises(ReadError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert str(path) in str(error.value)


def test_truncated_between_opening_and_composing(model, path):
    with lora_mmap.open_adapter(path) as adapter:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ReadError) as error:
            lora_mmap.compose(model, [(adapter, 1.0)])
        assert str(path) in str(error.value)


def test_rewritten_while_being_read(model, path, monkeypatch):
    """Same size, other bytes: a mixture of both must not end in the weights."""

    def rewrite():
        with open(path, "r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(bytes(64))
        os.utime(path, ns=(1, 1))

    on_call(monkeypatch, staging.HostStream, "load", 3, rewrite)
    with pytest.raises(ReadError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert str(path) in str(error.value)


def test_another_file_renamed_over_it_while_in_use(small, tmp_path, windows, monkeypatch):
    """The open file is still the one that was parsed: its bytes are composed."""
    twin = copy.deepcopy(small)
    tensors = keyed(adapter_for(small, MODULES))
    path = write(tmp_path / "a.safetensors", tensors)
    other = write(tmp_path / "b.safetensors", keyed(adapter_for(small, MODULES, seed=3)))
    on_call(monkeypatch, staging.HostStream, "load", 2, lambda: os.replace(other, path))
    lora_mmap.compose(small, [(path, 1.0)])
    lora_mmap.compose(twin, [(tensors, 1.0)])
    for name, weight in small.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name)), name


@pytest.mark.parametrize("damage", ["truncated", "rewritten"])
def test_a_file_changed_while_composed(small, tmp_path, sha256, damage):
    """Its factors are gone; the pristine weights, of which there is a copy, are not."""
    pristine = sha256(small)
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(small, MODULES)))
    lora_mmap.compose(small, [(path, 1.0)], restore="backup")
    composed = sha256(small)
    if damage == "truncated":
        os.truncate(path, 100)
    else:
        path.write_bytes(path.read_bytes()[:-8] + bytes(8))
        os.utime(path, ns=(1, 1))
    with pytest.raises(ReadError) as error:
        lora_mmap.set_lora_strength_v2(small, 0.5)
    assert str(path) in str(error.value)
    assert sha256(small) == composed
    assert lora_mmap.reset(small)
    assert sha256(small) == pristine


def test_a_file_deleted_while_composed(small, tmp_path, sha256):
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(small, MODULES)))
    lora_mmap.compose(small, [(path, 1.0)])
    composed = sha256(small)
    path.unlink()
    lora_mmap.set_lora_strength_v2(small, 0.5)
    assert sha256(small) != composed
    lora_mmap.set_lora_strength_v2(small, 1.0)
    assert sha256(small) == composed


def test_failed_compositions_leave_no_descriptor_open(small, tmp_path):
    tensors = keyed(adapter_for(small, MODULES))
    tensors["first.lora_A.weight"][0, 0] = float("nan")
    path = write(tmp_path / "a.safetensors", tensors)
    before = len(os.listdir("/proc/self/fd"))
    for _attempt in range(5):
        with pytest.raises(lora_mmap.errors.FusionOverflowError):
            lora_mmap.compose(small, [(path, 1.0)])
        with pytest.raises(OSError, match="nowhere"):
            lora_mmap.compose(small, [(path, 1.0), (tmp_path / "nowhere.safetensors", 1.0)])
    assert len(os.listdir("/proc/self/fd")) == before


def test_finished_compositions_leave_no_descriptor_open(small, tmp_path):
    path = write(tmp_path / "a.safetensors", keyed(adapter_for(small, MODULES)))
    before = len(os.listdir("/proc/self/fd"))
    for _attempt in range(5):
        lora_mmap.compose(small, [(path, 1.0)])
        lora_mmap.check(small, path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    lora_mmap.reset(small)
    assert len(os.listdir("/proc/self/fd")) == before
    lora_mmap.compose(small, [(path, 1.0)], restore="none")
    assert len(os.listdir("/proc/self/fd")) == before
