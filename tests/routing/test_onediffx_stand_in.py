"""Scripts that import onediffx.lora find our calls, as long as OneDiffX is not there."""

import importlib
import sys

import pytest
from other_process import run_python

import lora_mmap

CALLS = [
    "delete_adapters",
    "get_active_adapters",
    "load_and_fuse_lora",
    "load_lora_and_optionally_fuse",
    "set_and_fuse_adapters",
    "unfuse_lora",
]


def test_their_modules_have_our_calls():
    with lora_mmap.install():
        theirs = importlib.import_module("onediffx.lora")
        inner = importlib.import_module("onediffx.lora.lora")
        for name in CALLS:
            assert getattr(theirs, name) is getattr(inner, name) is getattr(lora_mmap, name)
        assert inner.clear_lora_cache is lora_mmap.clear_lora_cache
        assert inner.OneDiffXWarning is lora_mmap.LoraWarning
        with pytest.raises(ImportError, match="compile_pipe"):
            exec("from onediffx import compile_pipe", {})


def test_they_are_gone_afterwards():
    with lora_mmap.install():
        importlib.import_module("onediffx.lora.lora")
    assert not [name for name in sys.modules if name.partition(".")[0] == "onediffx"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("onediffx")


def test_nothing_is_offered_before():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("onediffx.lora")


def test_installing_twice_and_uninstalling_once():
    lora_mmap.install()
    lora_mmap.install()
    assert importlib.import_module("onediffx.lora")
    assert lora_mmap.uninstall()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("onediffx.lora")


def test_a_real_one_goes_first(tmp_path, monkeypatch):
    (tmp_path / "onediffx" / "lora").mkdir(parents=True)
    (tmp_path / "onediffx" / "__init__.py").write_text("compile_pipe = 1\n")
    (tmp_path / "onediffx" / "lora" / "__init__.py").write_text("real = True\n")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import lora_mmap
lora_mmap.install()
import onediffx.lora
assert onediffx.lora.real and onediffx.compile_pipe == 1
try:
    import onediffx.lora.lora
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("ours was mixed into theirs")
lora_mmap.uninstall()
assert sys.modules["onediffx.lora"].real
"""
    done = run_python(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_script_of_theirs_runs_unchanged(tmp_path):
    script = """
import lora_mmap
lora_mmap.install()
import torch
from torch import nn
from onediffx.lora import load_and_fuse_lora, set_and_fuse_adapters, delete_adapters, get_active_adapters, unfuse_lora
from onediffx.lora.lora import clear_lora_cache

class Pipe:
    unet = nn.ModuleDict({"a": nn.Linear(8, 8)})

pipe = Pipe()
start = pipe.unet.a.weight.clone()
lora = {"unet.a.lora_A.weight": torch.ones(2, 8), "unet.a.lora_B.weight": torch.ones(8, 2)}
load_and_fuse_lora(pipe, lora.copy(), adapter_name="x", lora_scale=0.5, offload_device="cpu", use_cache=True)
assert torch.equal(pipe.unet.a.weight, start + 1), pipe.unet.a.weight
set_and_fuse_adapters(pipe, adapter_names="x", adapter_weights=1.0)
assert get_active_adapters(pipe) == ["x"]
assert torch.equal(pipe.unet.a.weight, start + 2)
unfuse_lora(pipe)
assert torch.equal(pipe.unet.a.weight, start)
delete_adapters(pipe, "x")
clear_lora_cache()
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
