"""Adapter files that are none, are not there or may not be read: a clear error, and every weight as it was."""

import contextlib
import json
import os

import pytest
import torch
from adapter_tensors import adapter_for, keyed, write
from bad_input import assert_says, good
from header_bytes import file_of

import lora_mmap
from lora_mmap.errors import AdapterError, HeaderError

HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
FILES = {
    "empty file": (b"", HeaderError, []),
    "seven bytes": (b"1234567", HeaderError, []),
    "text file": (b"<!doctype html><html>Sign in to download this file</html>\n" * 9, HeaderError, []),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90868376\n",
        HeaderError,
        [],
    ),
    "truncated in the header": (file_of(HEADER, b"1234")[:20], HeaderError, []),
    "truncated in the data": (file_of(HEADER, b"12"), HeaderError, []),
    "unknown dtype": (
        file_of({"a": {"dtype": "F48", "shape": [1], "data_offsets": [0, 6]}}, b"123456"),
        HeaderError,
        ["F48"],
    ),
    "header is a list": (file_of("[1, 2]"), HeaderError, []),
    "config is not JSON": (None, AdapterError, ["adapter_config.json"]),
}


@pytest.mark.parametrize("fault", FILES)
def test_faulty_files(model, tmp_path, fault):
    content, kind, words = FILES[fault]
    path = tmp_path / "adapter_model.safetensors"
    if content is None:
        write(path, good(model))
        (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha":')
    else:
        path.write_bytes(content)
    with pytest.raises(kind) as error:
        lora_mmap.compose(model, [(good(model), 0.1), (path, 1.0)])
    assert_says(error, tmp_path, *words)  # in safetensors' own words, so without the name of a function


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "8"},
        {"lora_alpha": float("nan")},
        {"lora_alpha": [1]},
        {"lora_alpha": 4, "alpha_pattern": ["first"]},
        {"lora_alpha": 4, "alpha_pattern": {"first": "x"}},
        {"lora_alpha": 4, "alpha_pattern": {"fir(st": 2}},
        ["lora_alpha"],
    ],
    ids=json.dumps,
)
def test_malformed_configuration(model, tmp_path, config):
    write(tmp_path / "adapter_model.safetensors", keyed(adapter_for(model, ["first"])))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(tmp_path, 1.0)])
    assert_says(error, "adapter_config.json")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00lsq\x00\x85R."])
def test_faulty_pickles(model, tmp_path, suffix, content):
    path = tmp_path / f"adapter{suffix}"
    path.write_bytes(content)
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}])
def test_pickles_of_something_else(model, tmp_path, content):
    path = tmp_path / "adapter.pt"
    torch.save(content, path)
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)


def test_missing_file(model, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        lora_mmap.compose(model, [(tmp_path / "nowhere.safetensors", 1.0)])
    assert_says(error, tmp_path / "nowhere.safetensors")


def test_missing_pickle(model, tmp_path):
    with pytest.raises(FileNotFoundError):
        lora_mmap.compose(model, [(tmp_path / "nowhere.pt", 1.0)])


@pytest.mark.parametrize("several", [False, True])
def test_directory_without_an_adapter(model, tmp_path, several):
    if several:
        for name in "ab":
            write(tmp_path / f"{name}.safetensors", good(model))
    with pytest.raises(IsADirectoryError) as error:
        lora_mmap.compose(model, [(tmp_path, 1.0)])
    assert_says(error, tmp_path, "several" if several else "none")


def test_fifo(model, tmp_path):
    """Something that would block for ever when opened like a file."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(OSError, match=r"pipe\.safetensors"):
        lora_mmap.compose(model, [(tmp_path / "pipe.safetensors", 1.0)])


@contextlib.contextmanager
def unprivileged():
    """Root may read everything, so root steps down for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_permission_denied(model, tmp_path):
    path = write(tmp_path / "secret.safetensors", good(model))
    path.chmod(0)
    with unprivileged(), pytest.raises(PermissionError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)
