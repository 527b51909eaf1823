"""Code that loads as ComfyUI does, unchanged, with and without install()."""

import io
import sys
import types
from pathlib import Path

import comfy_stand_in
import pytest
import torch
from routed_loading import assert_same_tensors, load_both_ways
from safetensors.torch import save_file

import lora_mmap


@pytest.fixture(autouse=True)
def comfy(monkeypatch):
    """comfy.utils, and a custom node that imported from it and from safetensors."""
    package, node = types.ModuleType("comfy"), types.ModuleType("custom_nodes.loader")
    package.utils = comfy_stand_in
    node.load_torch_file = comfy_stand_in.load_torch_file
    node.st_load = sys.modules["safetensors.torch"].load_file
    for name, module in (("comfy", package), ("comfy.utils", comfy_stand_in), (node.__name__, node)):
        monkeypatch.setitem(sys.modules, name, module)
    return node


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "lora_unet_mid.lora_down.weight": torch.randn(4, 30).half(),
        "lora_unet_mid.lora_up.weight": torch.randn(30, 4).bfloat16(),
        "lora_unet_mid.alpha": torch.tensor(4.0),
        "scale": torch.randn(7).to(torch.float8_e4m3fn),
        "none": torch.zeros(0, 3),
    }
    path = str(tmp_path / "lora.safetensors")
    save_file(tensors, path, metadata={"ss_network_dim": "4"})
    return path


def bits(tensors):
    """torch.equal has no 8-bit floats."""
    return {k: v.view(torch.uint8) if v.dtype == torch.float8_e4m3fn else v for k, v in tensors.items()}


@pytest.mark.parametrize(
    ("loader", "options"),
    [
        ("load_torch_file_2023", {}),
        ("load_torch_file", {}),
        ("load_torch_file", {"safe_load": True, "device": torch.device("cpu")}),
        ("load_torch_file_2026", {}),
    ],
)
def test_load_torch_file(path, loader, options):
    theirs, ours = load_both_ways(lambda: getattr(sys.modules["comfy.utils"], loader)(path, **options))
    assert {k: v.dtype for k, v in ours.items()} == {k: v.dtype for k, v in theirs.items()}
    assert_same_tensors(bits(ours), bits(theirs))


def test_metadata(path):
    load = sys.modules["comfy.utils"].load_torch_file
    (_, theirs), (_, ours) = load_both_ways(lambda: load(path, return_metadata=True))
    assert ours == theirs == {"ss_network_dim": "4"}


def test_without_mapping(path, monkeypatch):
    monkeypatch.setattr(comfy_stand_in, "DISABLE_MMAP", True)
    theirs, ours = load_both_ways(lambda: comfy_stand_in.load_torch_file(path))
    assert_same_tensors(bits(ours), bits(theirs))


def test_custom_nodes(path, comfy):
    for load in (lambda: comfy.load_torch_file(path), lambda: comfy.st_load(path)):
        theirs, ours = load_both_ways(load)
        assert_same_tensors(bits(ours), bits(theirs))


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_a_storage_remembers_its_file(path, monkeypatch, backend):
    monkeypatch.setenv("LORA_MMAP_BACKEND", backend)
    with lora_mmap.installed():
        tensors = comfy_stand_in.load_torch_file_2026(path)
    assert all(tensor.untyped_storage()._comfy_source_path == path for tensor in tensors.values())


def a_pickle():
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda _: a_pickle(), "something else than a safetensors file"),
        (lambda whole: whole[:-3], "incomplete"),
        (lambda whole: whole + b"more", "incomplete"),
    ],
    ids=["checkpoint", "truncated", "trailing"],
)
def test_broken_files_are_told_to_the_user(path, broken, told):
    whole = Path(path).read_bytes()
    Path(path).write_bytes(broken(whole))
    with lora_mmap.installed(), pytest.raises(comfy_stand_in.Unusable, match=told):
        comfy_stand_in.load_torch_file(path)


def test_what_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with lora_mmap.installed():
        with pytest.raises(IsADirectoryError, match="folder"):
            comfy_stand_in.load_torch_file(str(tmp_path / "folder.safetensors"))
        with pytest.raises(FileNotFoundError, match="missing"):
            comfy_stand_in.load_torch_file(str(tmp_path / "missing.safetensors"))
        with pytest.raises(FileNotFoundError, match="null byte"):
            comfy_stand_in.load_torch_file(str(tmp_path / "\0.safetensors"))


def test_other_files_are_none_of_ours(tmp_path):
    path = str(tmp_path / "old.ckpt")
    torch.save({"a": torch.arange(3)}, path)
    with lora_mmap.installed():
        assert_same_tensors(comfy_stand_in.load_torch_file(path), {"a": torch.arange(3)})
