"""A file that is truncated, rewritten or replaced while it is open: an exception that says what, never a crash."""

import json
import os

import numpy as np
import pytest
import torch
from other_process import run_python
from safetensors import SafetensorError
from safetensors.torch import save_file

import lora_mmap
from lora_mmap.errors import ReadError

BACKENDS = ["auto", "mmap", "pread"]

# One interpreter for all that could kill it. Every line that it prints is an outcome.
SCRIPT = """
import json, os, sys
import lora_mmap
from lora_mmap.errors import ReadError

path, backend, framework = sys.argv[1:]
uses = {
    "get_tensor": lambda file, name: file.get_tensor(name),
    "get_tensors": lambda file, name: file.get_tensors(),
    "slice": lambda file, name: file.get_slice(name)[1:3],
    "slice of an earlier handle": lambda file, name: earlier[name][1:3],
    "a list, where slices take one": lambda file, name: earlier[name][[0, 2] if takes_lists else 0],
}
takes_lists = framework == "pt" and backend != "pread"
content = open(path, "rb").read()
for what, use in uses.items():
    for keep in (0, 5, 100, 4096, 8192, len(content) - 1):
        with open(path, "wb") as file:
            file.write(content)
        opened = lora_mmap.safe_open(path, framework, backend=backend)
        earlier = {name: opened.get_slice(name) for name in opened.keys()}
        os.truncate(path, keep)
        try:
            use(opened, "last")
            outcome = "no error"
        except ReadError as error:
            outcome = "ReadError " + str(path in str(error) and ("tensor `" in str(error) or "header" in str(error)))
        print(json.dumps([what, keep, outcome]), flush=True)
"""


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_truncation_after_open_never_kills_the_interpreter(backend, framework, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"first": torch.arange(2000.0), "last": torch.arange(30000.0).reshape(10, 3000)}, path)
    done = run_python(SCRIPT, path, backend, framework)
    assert done.returncode == 0, done
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == 5 * 6
    for what, keep, outcome in outcomes:
        assert outcome == "ReadError True", (what, keep, outcome)


def test_tensors_of_pread_survive_what_happens_to_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(300_000.0)}
    save_file(tensors, path)
    loaded = lora_mmap.torch.load_file(path, backend="pread")
    arrays = lora_mmap.numpy.load_file(path, backend="pread")
    os.truncate(path, 0)
    assert torch.equal(loaded["a"], tensors["a"])
    assert np.array_equal(arrays["a"], tensors["a"].numpy())


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_written_over_in_place_is_refused(backend, framework, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(4, 1000)}, path)
    file = lora_mmap.safe_open(path, framework, backend=backend)
    part = file.get_slice("a")
    content = path.read_bytes()
    with open(path, "r+b") as writer:
        writer.seek(len(content) - 8)
        writer.write(b"12345678")
    os.utime(path, ns=(1, 1))  # a clock that ticks too slowly to tell must not make this test pass or fail
    for use in (lambda: file.get_tensor("a"), file.get_tensors, lambda: part[0]):
        with pytest.raises(ReadError, match="written to after it was opened") as caught:
            use()
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, SafetensorError)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_renamed_over_the_path_leaves_the_open_one_alone(backend, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    file = lora_mmap.safe_open(path, "pt", backend=backend)
    save_file({"a": torch.ones(1000)}, tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert file.get_tensor("a").sum() == 0
    assert file.get_slice("a")[:10].sum() == 0
    assert lora_mmap.torch.load_file(path, backend=backend)["a"].sum() == 1000


@pytest.mark.parametrize("backend", BACKENDS)
def test_saving_over_a_file_whose_tensors_are_in_use(backend, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(200_000.0)}, path)
    tensors = lora_mmap.torch.load_file(path, backend=backend)
    lora_mmap.torch.save_file({"a": tensors["a"] + 1}, path)
    assert torch.equal(tensors["a"], torch.arange(200_000.0))
    assert torch.equal(lora_mmap.torch.load_file(path)["a"], torch.arange(200_000.0) + 1)


def test_an_adapter_names_the_tensor_that_was_cut_off(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"m.lora_down.weight": torch.zeros(4, 100), "m.lora_up.weight": torch.zeros(100, 4)}, path)
    with lora_mmap.open_adapter(path) as adapter:
        os.truncate(path, path.stat().st_size - 4)
        with pytest.raises(ReadError, match=r"x\.safetensors: .* inside tensor `m\.lora_up\.weight`"):
            adapter.tensor("m.lora_up.weight")


def test_an_adapter_refuses_a_file_written_over_in_place(tmp_path):
    path = tmp_path / "x.safetensors"
    pair = {"m.lora_down.weight": torch.zeros(4, 100), "m.lora_up.weight": torch.zeros(100, 4)}
    save_file({"m.alpha": torch.tensor(2.0), **pair}, path)
    with lora_mmap.open_adapter(path) as adapter:
        os.utime(path, ns=(1, 1))
        for use in (lambda: adapter.tensor("m.lora_up.weight"), adapter.alphas):
            with pytest.raises(ReadError, match=r"x\.safetensors: the file was written to after it was opened"):
                use()
