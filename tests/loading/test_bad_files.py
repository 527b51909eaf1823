"""Files that are none, that are not there, or that may not be read; and what is wrong inside by each way of loading."""

import os
from pathlib import Path

import pytest
import safetensors
import torch
from file_verdict import assert_same_rule, rejected
from header_bytes import file_of, tensor_file
from header_seeds import NAMED
from other_process import run_as_nobody, run_python

import lora_mmap
from lora_mmap.errors import HeaderError, UnreadableFileError

LOADS = {
    "safe_open": lambda module, path: module.safe_open(path, "pt"),
    "safe_open np": lambda module, path: module.safe_open(path, "np"),
    "load_file": lambda module, path: module.torch.load_file(path),
    "load_file np": lambda module, path: module.numpy.load_file(path),
    "load": lambda module, path: module.torch.load(Path(path).read_bytes()),
    "load np": lambda module, path: module.numpy.load(Path(path).read_bytes()),
    "load_model": lambda module, path: module.torch.load_model(torch.nn.Linear(1, 1), path),
}


def breaks_a_rule(content):
    try:
        safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return True
    return False


BROKEN = [name for name, content in NAMED.items() if breaks_a_rule(content)]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("name", BROKEN)
def test_every_way_of_loading_names_the_rule(name, load, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(NAMED[name])
    prefix = "Error while deserializing: " if load.startswith("load ") or load == "load" else None
    prefix = prefix or "Error while deserializing header: "
    with pytest.raises(safetensors.SafetensorError) as theirs:
        LOADS[load](safetensors, path)
    with pytest.raises(HeaderError) as ours:
        LOADS[load](lora_mmap, path)
    assert_same_rule(rejected(ours.value, prefix), rejected(theirs.value, prefix), NAMED[name])
    assert ("bytes in memory" if prefix.endswith("deserializing: ") else "broken.safetensors") in str(ours.value)


TOKENS = {
    "header too large": ("HeaderTooLarge", NAMED["N is 2^63"]),
    "incomplete metadata": ("MetadataIncompleteBuffer", NAMED["data too short"]),
    "header too small": ("HeaderTooSmall", NAMED["seven bytes"]),
    "invalid header length": ("InvalidHeaderLength", NAMED["header shorter than N"]),
}


@pytest.mark.parametrize("rule", TOKENS)
def test_the_words_that_old_programs_look_for(rule, tmp_path):
    """ComfyUI finds the names of safetensors' old enum in the text, to say in plain words what is wrong."""
    token, content = TOKENS[rule]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(safetensors.SafetensorError, match=rf"{rule}.*{token}"):
        lora_mmap.torch.load_file(path)


def test_what_is_wrong_is_said_with_names_and_numbers(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensor_file(shape="[2]"))
    with pytest.raises(HeaderError, match=r"x\.safetensors: tensor `a`: F32 \[2\]: expected 8 bytes, got 4"):
        lora_mmap.torch.load_file(path)


@pytest.mark.parametrize("load", ["safe_open", "safe_open np", "load_file", "load_file np", "load_model"])
@pytest.mark.parametrize("name", ["missing", "missing/x", "", "a\0b", "x" * 300])
def test_missing(package, tmp_path, monkeypatch, load, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^No such file or directory: " + name):
        LOADS[load](package.module, name)


def test_a_file_is_no_folder(package, path):
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        package.open(f"{path}/x")


def test_links(package, path, tensors):
    link, broken = path.with_name("link"), path.with_name("broken")
    link.symlink_to(path)
    broken.symlink_to(path.with_name("nothing"))
    assert torch.equal(package.load_file(link)["matrix"], tensors["matrix"])
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*broken"):
        package.load_file(broken)
    broken.unlink()
    broken.symlink_to(broken)
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*broken"):
        package.load_file(broken)


@pytest.mark.parametrize("what", ["folder", "/dev/null"])
def test_neither_folders_nor_devices(package, tmp_path, what):
    with pytest.raises(OSError, match=r".") as caught:
        package.load_file(tmp_path if what == "folder" else what)
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        lora_mmap.torch.load_file(tmp_path)


def test_a_fifo_does_not_hang(tmp_path):
    """safetensors waits for somebody to write to it: see test_where_safetensors_is_wrong."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = """
import sys, lora_mmap
for load in (lora_mmap.torch.load_file, lora_mmap.numpy.load_file, lambda path: lora_mmap.safe_open(path, "pt")):
    try:
        load(sys.argv[1])
    except FileNotFoundError:
        print("missing")
    except OSError as error:
        print(error)
"""
    done = run_python(script, fifo)
    assert done.stdout.count("Not a regular file") == 3, done


def test_a_file_that_may_not_be_read(path):
    """An error for those who catch safetensors' FileNotFoundError, and for those who want to know."""
    path.chmod(0)
    script = """
for framework in ("pt", "np"):
    try:
        lora_mmap.safe_open("x.safetensors", framework)
    except FileNotFoundError as error:
        print(isinstance(error, PermissionError), error)
"""
    done = run_as_nobody(path.parent, "import lora_mmap", script)
    expected = "True No such file or directory: x.safetensors (Permission denied: x.safetensors)"
    assert done.stdout.splitlines() == [expected] * 2, done


def test_a_permission_error_in_this_process(path, monkeypatch):
    """The same without another user to be, so that it is seen to be raised where a debugger can follow."""

    def refuse(path):
        raise PermissionError(13, f"Permission denied: {path}", path)

    monkeypatch.setattr("lora_mmap.loading.opened_file._C.File", refuse)
    with pytest.raises(UnreadableFileError, match=r"^No such file or directory: .*Permission denied") as caught:
        lora_mmap.torch.load_file(path)
    assert caught.value.errno == 13


def test_nothing_stays_open_after_a_failure(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of("[]"))
    before = len(os.listdir("/proc/self/fd"))
    for target in (path, tmp_path, "/dev/null", tmp_path / "missing"):
        with pytest.raises((OSError, safetensors.SafetensorError)):
            lora_mmap.torch.load_file(target)
    for how in ({"device": "meta"}, {"backend": "x"}):
        with pytest.raises(safetensors.SafetensorError):
            lora_mmap.torch.load_file(path, **how)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_stays_open_after_loading(package, path):
    before = len(os.listdir("/proc/self/fd"))
    loaded = package.load_file(path)
    with package.open(path) as file:
        tensor = file.get_tensor("matrix")
    del file
    assert len(os.listdir("/proc/self/fd")) == before, (loaded, tensor)


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_a_name_that_is_not_utf8(path, backend):
    name = os.fsdecode(os.fsencode(path.parent) + b"/\xff.safetensors")
    path.rename(name)
    for filename in (name, Path(name)):
        assert lora_mmap.torch.load_file(filename, backend=backend)["scalar"] == 3.5
        assert lora_mmap.safe_open(filename, "np", backend=backend).keys()
