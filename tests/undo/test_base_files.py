"""What may be named as a base: files, indexes, folders as diffusers and transformers save them, and nothing else."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from lora_mmap import _C
from lora_mmap.base_checkpoint import BaseCheckpoint
from lora_mmap.errors import ArgumentError, HeaderError, ReadError


def put(folder, *names):
    for name in names:
        save_file({name: torch.ones(1)}, folder / name)


def put_index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def names_of(source):
    with BaseCheckpoint.open(source) as base:
        return sorted(base.names)


PLAIN, DIFFUSERS = "model.safetensors", "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ([PLAIN], PLAIN),
        ([DIFFUSERS], DIFFUSERS),
        (["anything.safetensors"], "anything.safetensors"),
        ([PLAIN, "model.fp16.safetensors", "other.safetensors"], PLAIN),
        ([DIFFUSERS, "diffusion_pytorch_model.fp16.safetensors"], DIFFUSERS),
        (["diffusion_pytorch_model.fp16.safetensors"], "diffusion_pytorch_model.fp16.safetensors"),
        (["model.bf16.safetensors", "consolidated.safetensors"], "model.bf16.safetensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_file_of_a_folder(present, chosen, tmp_path):
    put(tmp_path, *present)
    assert names_of(tmp_path) == [chosen]


def test_a_file_by_its_own_name(tmp_path):
    put(tmp_path, PLAIN, "b.safetensors")
    (tmp_path / "blob").symlink_to("b.safetensors")  # as in the cache of huggingface_hub
    assert names_of(str(tmp_path / "blob")) == ["b.safetensors"]


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "model.safetensors.index.fp16.json"])
def test_an_index_comes_before_files_beside_it(index, tmp_path):
    put(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    put(tmp_path, "consolidated.safetensors")
    weight_map = {f"model-0000{n}-of-00002.safetensors": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    put_index(tmp_path, weight_map, index)
    assert names_of(tmp_path) == sorted(weight_map)
    assert names_of(tmp_path / index) == sorted(weight_map)


def test_shards_are_opened_when_they_are_needed(tmp_path):
    for number in range(3):
        save_file({f"m{number}.weight": torch.full((2, 2), float(number))}, tmp_path / f"s{number}.safetensors")
    put_index(tmp_path, {f"m{number}.weight": f"s{number}.safetensors" for number in range(3)})
    before = _C.counters()["files_opened"]
    with BaseCheckpoint.open(tmp_path) as base:
        assert _C.counters()["files_opened"] == before
        for _ in range(2):
            assert base._tensor("m1.weight").file.path.endswith("s1.safetensors")
        assert _C.counters()["files_opened"] == before + 1


@pytest.mark.parametrize(
    ("present", "words"),
    [
        ([], "has no safetensors file: expected model.safetensors or"),
        (["a.safetensors", "b.safetensors"], r"has a.safetensors, b.safetensors: expected one"),
        (["model.fp16.safetensors", "model.bf16.safetensors"], "model.bf16.safetensors, model.fp16.safetensors"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "expected one, name the file"),
    ],
    ids=["none", "two", "two variants", "no index"],
)
def test_folders_that_say_too_little(present, words, tmp_path):
    put(tmp_path, *present)
    with pytest.raises(ArgumentError, match=rf"^\[compose\] base {tmp_path} .*{words}"):
        BaseCheckpoint.open(tmp_path)


def test_a_pipelines_folder(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ArgumentError, match="a pipeline's, expected the folder of one component"):
        BaseCheckpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "x.pt", "x.PTH", "x.ckpt"])
def test_pickles(name, tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(ArgumentError, match=r"^\[compose\] base .* is a pickle, expected safetensors"):
        BaseCheckpoint.open(tmp_path / name)
    with pytest.raises(ArgumentError, match="are pickles, which cannot serve as a base"):
        BaseCheckpoint.open(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "\xff", "[" * 100_000], ids=range(7)
)
def test_indexes_that_are_none(text, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArgumentError, match="is no index of shards"):
        BaseCheckpoint.open(tmp_path)


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ""])
def test_shards_lie_beside_their_index(shard, tmp_path):
    put_index(tmp_path, {"w": shard})
    with pytest.raises(ArgumentError, match="expected a file beside it"):
        BaseCheckpoint.open(tmp_path)


def test_a_shard_that_is_missing_or_says_otherwise(tmp_path):
    put_index(tmp_path, {"w": "a.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"\[compose\] base .* names the shard a.safetensors"):
        BaseCheckpoint.open(tmp_path)
    save_file({"v": torch.ones(1)}, tmp_path / "a.safetensors")
    with BaseCheckpoint.open(tmp_path) as base, pytest.raises(ArgumentError, match="has no tensor 'w'"):
        base._tensor("w")


def test_other_failures(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[compose\] base .*nowhere"):
        BaseCheckpoint.open(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="base is a dict, expected the path"):
        BaseCheckpoint.open({"w": torch.ones(1)})
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(HeaderError, match=rf"^\[compose\] base {tmp_path / 'x.gguf'} is no valid safetensors"):
        BaseCheckpoint.open(tmp_path / "x.gguf")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"\[compose\] base: Not a regular file"):
        BaseCheckpoint.open(tmp_path / "pipe")


def test_a_change_of_any_opened_shard_is_noticed(tmp_path):
    for name in ("a", "b"):
        save_file({name: torch.ones(4)}, tmp_path / f"{name}.safetensors")
    put_index(tmp_path, {name: f"{name}.safetensors" for name in "ab"})
    with BaseCheckpoint.open(tmp_path) as base:
        first, second = base._tensor("a"), base._tensor("b")
        base.check_unchanged()
        with open(second.file.path, "ab") as file:
            file.write(b"x")
        first.check_unchanged()
        for check in (second.check_unchanged, base.check_unchanged):
            with pytest.raises(ReadError, match=r"b\.safetensors: the file changed after it was opened"):
                check()
