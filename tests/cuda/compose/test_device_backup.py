"""Copies of a device's weights are in pinned host memory: used there, let go of in time, or clearly not to be had."""

import copy
import gc

import pytest
from device_models import adapter_file, bytes_of, differing

import lora_mmap
from lora_mmap import _C
from lora_mmap.errors import CudaError

OUT_OF_MEMORY = 2


def test_fast_arithmetic_is_undone_from_copies_alone(models, torch_side, tmp_path):
    device, host = models
    before = torch_side.held[0]
    report = lora_mmap.compose(device, [(adapter_file(tmp_path, host), 1.0)], numerics="fast")
    assert torch_side.held[0] == before
    assert _C.cuda_pinned_block_nbytes() >= report.memory["restore"] > 0
    lora_mmap.reset(device)
    assert _C.cuda_pinned_block_nbytes() == 0


def test_none_keeps_nothing(models, tmp_path):
    device, host = models
    assert lora_mmap.compose(device, [(adapter_file(tmp_path, host), 1.0)], restore="none")
    assert _C.cuda_pinned_block_nbytes() == 0


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_a_switch_reads_pristine_values_where_they_are(models, torch_side, fake_cuda, tmp_path, mode):
    fake_cuda.mode(mode, 3)
    device, host = models
    adapters = [adapter_file(tmp_path, host, seed=seed) for seed in range(2)]
    for path in [*adapters, adapters[0]]:
        for model in models:
            lora_mmap.compose(model, [(path, 0.5)])
        torch_side.synchronize()
        assert differing(device, host) == []


def test_a_model_that_dies_while_the_device_works(torch_side, fake_cuda, models, tmp_path):
    """Nothing is freed under the device's hands: the weights, held by somebody else, are switched all the same."""
    host = models[1]
    device = torch_side.move(copy.deepcopy(host))
    path = adapter_file(tmp_path, host)
    for model in (device, host):
        lora_mmap.compose(model, [(path, 0.5)])
    fake_cuda.mode("lazy")
    lora_mmap.compose(device, [(path, 1.0)], non_blocking=True)
    lora_mmap.compose(host, [(path, 1.0)])
    weights = list(device.parameters())
    del device, model
    gc.collect()
    assert _C.cuda_pinned_block_nbytes() == 0
    torch_side.synchronize()
    for ours, theirs in zip(weights, host.parameters(), strict=True):
        assert bytes_of(ours) == bytes_of(theirs)


def test_memory_that_cannot_be_pinned(models, torch_side, fake_cuda, sha256, tmp_path):
    device, host = models
    path = adapter_file(tmp_path, host)
    lora_mmap.compose(device, [(path, 1.0)])  # the ring, and small buffers
    lora_mmap.reset(device)
    before = sha256(device)
    fake_cuda.fail(1, "cuMemHostAlloc", OUT_OF_MEMORY)
    with pytest.raises(CudaError, match="bytes of host memory for copies of weights cannot be pinned"):
        lora_mmap.compose(device, [(path, 1.0)])
    fake_cuda.fail(0)
    torch_side.synchronize()
    assert sha256(device) == before
    assert lora_mmap.compose(device, [(path, 1.0)])
