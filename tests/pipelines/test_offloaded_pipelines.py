"""accelerate's hooks: what brings whole modules is fine, what leaves weights on meta is refused with the way out."""

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from stand_in_pipelines import Pipeline, adapter, hashes

import lora_mmap
from lora_mmap.errors import ModelError

REFUSED = r"weight 'blocks\.0\.weight' of unet is on the meta device: accelerate offloads.*remove_all_hooks"


def offload(pipeline):
    """What enable_sequential_cpu_offload does, with the CPU as the device that computes."""
    for module in pipeline.modules.values():
        cpu_offload(module, torch.device("cpu"))


def bring_back(pipeline):
    for module in pipeline.modules.values():
        remove_hook_from_submodules(module)


def test_sequential_offload_is_refused(sha256):
    pipeline = Pipeline()
    start = hashes(pipeline, sha256)
    offload(pipeline)
    assert pipeline.unet.blocks[0].weight.is_meta
    with pytest.raises(ModelError, match=REFUSED):
        lora_mmap.load_and_fuse_lora(pipeline, adapter(1))
    with pytest.raises(ModelError, match=REFUSED):
        lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(1), fuse=False)
    assert lora_mmap.get_list_adapters(pipeline) == {}
    bring_back(pipeline)
    assert hashes(pipeline, sha256) == start
    assert lora_mmap.load_and_fuse_lora(pipeline, adapter(1))


def test_what_was_fused_before_is_taken_out_after(sha256):
    pipeline = Pipeline()
    start = hashes(pipeline, sha256)
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1))
    fused = hashes(pipeline, sha256)
    offload(pipeline)
    for call in (
        lambda: lora_mmap.unfuse_lora(pipeline),
        lambda: lora_mmap.delete_adapters(pipeline),
        lambda: lora_mmap.set_and_fuse_adapters(pipeline, "default_0", 0.5),
    ):
        with pytest.raises(ModelError, match=REFUSED):
            call()
    assert lora_mmap.get_active_adapters(pipeline) == ["default_0"]
    bring_back(pipeline)
    assert hashes(pipeline, sha256) == fused
    assert lora_mmap.unfuse_lora(pipeline)
    assert hashes(pipeline, sha256) == start


def test_the_forward_sees_the_new_weights_when_offloaded_afterwards():
    pipeline = Pipeline(torch.float32)
    x = torch.randn(2, 64)
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1))
    expected = pipeline.unet.blocks[0](x)
    offload(pipeline)
    assert torch.equal(pipeline.unet.blocks[0](x), expected)


@pytest.fixture
def offload_groups():
    """diffusers' group offloading, with the CPU as the device that computes."""
    hooks = pytest.importorskip("diffusers.hooks.group_offloading")

    def offload(module, folder=None):
        cpu = torch.device("cpu")
        hooks.apply_group_offloading(module, cpu, cpu, "leaf_level", offload_to_disk_path=folder and str(folder))

    return offload


def test_groups_on_disk_are_refused(offload_groups, tmp_path, sha256):
    pipeline = Pipeline(torch.float32)
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1))
    x = torch.randn(2, 64)
    expected = pipeline.unet.blocks[0](x)
    offload_groups(pipeline.unet, tmp_path)
    for call in (
        lambda: lora_mmap.load_and_fuse_lora(pipeline, adapter(2)),
        lambda: lora_mmap.set_and_fuse_adapters(pipeline, "default_0", 0.5),
        lambda: lora_mmap.unfuse_lora(pipeline),
    ):
        with pytest.raises(ModelError, match=r"module 'blocks\.0' of unet is offloaded to .*diffusers brings"):
            call()
    assert torch.equal(pipeline.unet.blocks[0](x), expected)


def test_groups_in_memory_are_fine(offload_groups, sha256):
    pipeline, x = Pipeline(torch.float32), torch.randn(2, 64)
    start = hashes(pipeline, sha256)
    offload_groups(pipeline.unet)
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1))
    twin = Pipeline(torch.float32)
    lora_mmap.load_and_fuse_lora(twin, adapter(1))
    assert torch.equal(pipeline.unet.blocks[0](x), twin.unet.blocks[0](x))
    assert lora_mmap.unfuse_lora(pipeline)
    assert hashes(pipeline, sha256) == start
