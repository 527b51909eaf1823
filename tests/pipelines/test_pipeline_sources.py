"""Where a pipeline's adapters may come from: files, folders, dicts, the hub's cache."""

import json
import re

import pytest
import torch
from adapter_tensors import factors, write
from stand_in_pipelines import Pipeline, adapter, hashes

import lora_mmap
from lora_mmap.errors import ArgumentError

REPOSITORY = "somebody/some-lora"


@pytest.fixture
def pipeline():
    return Pipeline()


@pytest.fixture
def expected(sha256):
    """What the adapter with a seed makes of a pipeline."""

    def make(seed):
        other = Pipeline()
        lora_mmap.load_and_fuse_lora(other, adapter(seed))
        return hashes(other, sha256)

    return make


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A folder as huggingface_hub keeps repositories in, and what puts a file into one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = tmp_path / "hub" / ("models--" + REPOSITORY.replace("/", "--"))
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return tmp_path / "hub", snapshot


def test_a_file(pipeline, expected, sha256, tmp_path):
    report = lora_mmap.load_and_fuse_lora(pipeline, write(tmp_path / "a.safetensors", adapter(1)))
    assert report
    assert (report.files_opened, report.headers_parsed, report.keys_classified) == (1, 1, 14)
    assert hashes(pipeline, sha256) == expected(1)


def test_a_file_is_read_once_for_all_components(pipeline, tmp_path):
    path = write(tmp_path / "a.safetensors", adapter(1))
    assert lora_mmap.load_and_fuse_lora(pipeline, path).bytes_read == path.stat().st_size


def test_a_file_of_a_folder(pipeline, expected, sha256, tmp_path):
    write(tmp_path / "a.safetensors", adapter(1))
    write(tmp_path / "b.safetensors", adapter(2))
    lora_mmap.load_and_fuse_lora(pipeline, tmp_path, weight_name="b.safetensors")
    assert hashes(pipeline, sha256) == expected(2)


def test_a_folder_inside_a_folder(pipeline, expected, sha256, tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner" / "pytorch_lora_weights.safetensors", adapter(1))
    lora_mmap.load_and_fuse_lora(pipeline, str(tmp_path), subfolder="inner")
    assert hashes(pipeline, sha256) == expected(1)


def test_a_file_that_the_folder_lacks(pipeline, tmp_path):
    write(tmp_path / "a.safetensors", adapter(1))
    with pytest.raises(FileNotFoundError, match=re.escape("no file 'b.safetensors' (a.safetensors), expected one")):
        lora_mmap.load_and_fuse_lora(pipeline, tmp_path, weight_name="b.safetensors")


def test_a_folder_with_several_files_needs_a_name(pipeline, tmp_path):
    write(tmp_path / "a.safetensors", adapter(1))
    write(tmp_path / "b.safetensors", adapter(2))
    with pytest.raises(IsADirectoryError, match=r"several: a\.safetensors, b\.safetensors"):
        lora_mmap.load_and_fuse_lora(pipeline, tmp_path)


def test_a_peft_folder_with_its_configuration(pipeline, tmp_path):
    down, up = factors(64, 64, 4, 7)
    tensors = {f"base_model.model.blocks.1.lora_{part}.weight": value for part, value in (("A", down), ("B", up))}
    write(tmp_path / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "use_rslora": True, "alpha_pattern": {"blocks.1": 12}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora_mmap.load_and_fuse_lora(pipeline, tmp_path)
    twin = Pipeline().unet
    lora_mmap.compose(twin, [(tensors | {"base_model.model.blocks.1.alpha": torch.tensor(24.0)}, 1.0)])
    assert torch.equal(pipeline.unet.blocks[1].weight, twin.blocks[1].weight)


def test_a_repository_in_the_cache(pipeline, expected, sha256, hub_cache):
    cache, snapshot = hub_cache
    write(snapshot / "pytorch_lora_weights.safetensors", adapter(1))
    lora_mmap.load_and_fuse_lora(pipeline, REPOSITORY, cache_dir=cache, local_files_only=True)
    assert hashes(pipeline, sha256) == expected(1)


def test_a_named_file_of_a_repository(pipeline, expected, sha256, hub_cache):
    cache, snapshot = hub_cache
    (snapshot / "sub").mkdir()
    write(snapshot / "sub" / "a.safetensors", adapter(1))
    write(snapshot / "sub" / "b.safetensors", adapter(2))
    lora_mmap.load_and_fuse_lora(
        pipeline, REPOSITORY, cache_dir=cache, local_files_only=True, weight_name="b.safetensors", subfolder="sub"
    )
    assert hashes(pipeline, sha256) == expected(2)


def test_the_configuration_of_a_repository(pipeline, hub_cache):
    cache, snapshot = hub_cache
    down, up = factors(64, 64, 4, 7)
    tensors = {f"base_model.model.blocks.0.lora_{part}.weight": value for part, value in (("A", down), ("B", up))}
    write(snapshot / "adapter_model.safetensors", tensors)
    (snapshot / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    lora_mmap.load_and_fuse_lora(pipeline, REPOSITORY, cache_dir=cache, local_files_only=True)
    twin = Pipeline().unet
    lora_mmap.compose(twin, [(tensors | {"base_model.model.blocks.0.alpha": torch.tensor(8.0)}, 1.0)])
    assert torch.equal(pipeline.unet.blocks[0].weight, twin.blocks[0].weight)


def test_several_files_of_a_repository_need_a_name(pipeline, hub_cache):
    cache, snapshot = hub_cache
    write(snapshot / "a.safetensors", adapter(1))
    write(snapshot / "b.safetensors", adapter(2))
    with pytest.raises(FileNotFoundError, match=r"found a\.safetensors, b\.safetensors; say which with weight_name="):
        lora_mmap.load_and_fuse_lora(pipeline, REPOSITORY, cache_dir=cache, local_files_only=True)


def test_a_repository_that_is_not_to_be_had(pipeline, tmp_path, sha256):
    before = hashes(pipeline, sha256)
    with pytest.raises(FileNotFoundError, match=r"\[load_and_fuse_lora\] no/such: no such file or folder, and"):
        lora_mmap.load_and_fuse_lora(pipeline, "no/such", cache_dir=tmp_path, local_files_only=True)
    assert hashes(pipeline, sha256) == before


def test_a_missing_file_is_no_repository(pipeline):
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        lora_mmap.load_and_fuse_lora(pipeline, "folder/missing.safetensors")


@pytest.mark.parametrize(
    "options", [{"device": "cpu", "unet_config": None}, {"use_safetensors": True}, {"proxies": None, "user_agent": {}}]
)
def test_what_diffusers_takes_is_accepted(pipeline, options):
    assert lora_mmap.load_and_fuse_lora(pipeline, adapter(1), **options)


def test_what_nobody_knows_is_refused(pipeline):
    with pytest.raises(ArgumentError, match=r"\[load_and_fuse_lora\] there is no argument 'lora_scal'"):
        lora_mmap.load_and_fuse_lora(pipeline, adapter(1), lora_scal=0.5)


@pytest.mark.parametrize("source", [None, 3, ["a.safetensors"]])
def test_what_is_no_source(pipeline, source):
    with pytest.raises(ArgumentError, match="expected a path, the id of a repository or a dict of tensors"):
        lora_mmap.load_and_fuse_lora(pipeline, source)


def test_the_callers_dict_stays_as_it_is(pipeline):
    tensors = adapter(1)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    lora_mmap.load_and_fuse_lora(pipeline, tensors)
    for tensor in tensors.values():
        tensor.zero_()
    lora_mmap.set_and_fuse_adapters(pipeline, "default_0", 0.5)
    twin = Pipeline()
    lora_mmap.load_and_fuse_lora(twin, copies, lora_scale=0.5)
    assert torch.equal(twin.unet.blocks[0].weight, pipeline.unet.blocks[0].weight)
