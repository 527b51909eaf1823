"""What is held for a pipeline's adapters: native dtypes or fp32, and nothing once they are gone."""

import pytest
import torch
from adapter_tensors import write
from stand_in_pipelines import Pipeline, adapter, hashes

import lora_mmap
from lora_mmap.errors import ArgumentError


def factors_nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("as_file", [True, False])
def test_native_dtypes_or_fp32(tmp_path, sha256, dtype, as_file):
    tensors = adapter(3, dtype)
    source = write(tmp_path / "a.safetensors", tensors) if as_file else tensors
    small, large = Pipeline(), Pipeline()
    native = lora_mmap.load_and_fuse_lora(small, source, lora_scale=0.7)
    whole = lora_mmap.load_and_fuse_lora(large, source, lora_scale=0.7, memory_efficient=False)
    assert hashes(small, sha256) == hashes(large, sha256)
    slack = 64 * len(tensors)
    nbytes = factors_nbytes(tensors)
    # A dict's tensors are held once, and each component's report counts them.
    times = 1 if as_file else 3
    assert nbytes <= native.memory["retained"] <= times * (nbytes + slack)
    in_fp32 = nbytes * 4 // dtype.itemsize
    assert in_fp32 <= whole.memory["retained"] <= 3 * (in_fp32 + slack)
    for pipeline in (small, large):
        lora_mmap.unfuse_lora(pipeline)
    assert hashes(small, sha256) == hashes(large, sha256) == hashes(Pipeline(), sha256)


def test_alphas_and_metadata_count_in_fp32_too(tmp_path, sha256):
    tensors = adapter(3, torch.float16) | {"unet.blocks.0.alpha": torch.tensor(2.0, dtype=torch.float16)}
    meta = {"lora_adapter_metadata": '{"text_encoder.lora_alpha": 12, "text_encoder.r": 4}'}
    path = write(tmp_path / "a.safetensors", tensors, meta)
    native, whole = Pipeline(), Pipeline()
    lora_mmap.load_and_fuse_lora(native, path)
    lora_mmap.load_and_fuse_lora(whole, path, memory_efficient=False)
    assert hashes(native, sha256) == hashes(whole, sha256)


def test_pickles_in_fp32(tmp_path, sha256):
    torch.save(adapter(3, torch.bfloat16), tmp_path / "a.bin")
    native, whole = Pipeline(), Pipeline()
    lora_mmap.load_and_fuse_lora(native, tmp_path / "a.bin")
    lora_mmap.load_and_fuse_lora(whole, tmp_path / "a.bin", memory_efficient=False)
    assert hashes(native, sha256) == hashes(whole, sha256)


def test_an_adapter_that_is_only_loaded_holds_no_factors(tmp_path):
    path = write(tmp_path / "a.safetensors", adapter(3))
    report = lora_mmap.load_lora_and_optionally_fuse(Pipeline(), path, fuse=False)
    assert report.memory.get("retained", 0) == 0
    assert report.bytes_read == 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_switching_among_active_adapters_reads_nothing(tmp_path):
    pipeline = Pipeline()
    for seed in (1, 2):
        lora_mmap.load_and_fuse_lora(pipeline, write(tmp_path / f"{seed}.safetensors", adapter(seed)), str(seed))
    assert lora_mmap.set_and_fuse_adapters(pipeline, ["1", "2"], [0.2, -3]).bytes_read == 0
    assert lora_mmap.set_and_fuse_adapters(pipeline, ["1"], 0.0).bytes_read == 0


def test_the_cache_serves_pipelines(tmp_path, sha256):
    lora_mmap.clear_lora_cache()
    path = write(tmp_path / "a.safetensors", adapter(3))
    first, second = Pipeline(), Pipeline()
    opened = lora_mmap.load_and_fuse_lora(first, path, use_cache=True)
    again = lora_mmap.load_and_fuse_lora(second, path, use_cache=True)
    assert (opened.files_opened, opened.headers_parsed, opened.keys_classified) == (1, 1, 14)
    assert (again.files_opened, again.headers_parsed, again.keys_classified) == (0, 0, 0)
    assert again.bytes_read == factors_nbytes(adapter(3))
    assert hashes(first, sha256) == hashes(second, sha256)
    lora_mmap.delete_adapters(first)
    lora_mmap.delete_adapters(second)
    assert lora_mmap.clear_lora_cache()["headers"] > 0


@pytest.mark.parametrize("device", ["nowhere", 3.5, ""])
def test_impossible_offload_devices(device):
    with pytest.raises(ArgumentError, match=r"\[load_and_fuse_lora\] offload_device is"):
        lora_mmap.load_and_fuse_lora(Pipeline(), adapter(), offload_device=device)
