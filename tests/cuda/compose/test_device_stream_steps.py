"""Steps among the jobs of a stream of factors: the same bits, and flags that belong to the right job."""

import pytest
import torch
from device_models import adapter_file, differing

import lora_mmap
from lora_mmap.cuda import device_stream
from lora_mmap.errors import FusionOverflowError


def stepping(held, every=1):
    """A `fuse` that makes a step of every so manyth job."""

    def fuse(stream, jobs):
        for i, job in enumerate(jobs):
            weight, base, rows, cols, row_stride, col_stride, *_, dtype, terms = job
            if i % every or base != weight:
                original(stream, [job])
                continue
            record = stream.record(rows, cols, dtype, corrections=dtype != "F64")
            held.append((stream, record))
            place = (weight, rows, cols, row_stride, col_stride, dtype)
            assert stream.step([(*place, None, (terms, record, 0, 0, 0), None)]) == []
        return []

    original = device_stream.DeviceStream.fuse
    return fuse


@pytest.mark.parametrize("mode", ["eager", "lazy", "random"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_composition_by_steps(models, torch_side, fake_cuda, tmp_path, monkeypatch, mode, every):
    fake_cuda.mode(mode, 5)
    device, host = models
    held = []
    monkeypatch.setattr(device_stream.DeviceStream, "fuse", stepping(held, every))
    path = adapter_file(tmp_path, host, rank=3)
    for model in models:
        lora_mmap.compose(model, [(path, 0.1)])
    torch_side.synchronize()
    assert differing(device, host) == []
    assert len(held) >= 3
    assert all(record.written == record.tiles for _, record in held)
    assert all((stream.full, stream.foreign) == ([], []) for stream, _ in held)


def test_an_overflow_and_full_records(models, torch_side, fake_cuda, sha256, tmp_path, monkeypatch):
    device, host = models
    with torch.no_grad():
        host.brain.weight[5, 6] = device.brain.weight[5, 6] = torch.finfo(torch.bfloat16).max
    held = []
    monkeypatch.setattr(device_stream.DeviceStream, "fuse", stepping(held))
    before = sha256(device)
    path = adapter_file(tmp_path, host, rank=3, modules=["single", "brain", "small"])
    with pytest.raises(FusionOverflowError, match="brain"):
        lora_mmap.compose(device, [(path, 1e38)])
    torch_side.synchronize()
    assert sha256(device) == before
    full = {job for stream, _ in held for job in stream.full}
    assert full <= set(range(len(held)))
    assert full
