"""``non_blocking=True``: nothing waits for the device, and the report settles when it is asked."""

import pytest
import torch
from device_models import adapter_file, differing

import lora_mmap
from lora_mmap.errors import FusionOverflowError

WAITS = ("cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize", "cuMemcpyDtoH_v2")


def waits(fake):
    return {name: fake.calls.get(name, 0) for name in WAITS}


@pytest.fixture
def hopeless(models):
    """An adapter that makes some weight of the model overflow."""
    _, host = models
    rows, cols = host.brain.weight.shape
    return {
        "brain.lora_A.weight": torch.full((1, cols), 1e30),
        "brain.lora_B.weight": torch.full((rows, 1), 1e30),
        "single.lora_A.weight": torch.ones(1, 23),
        "single.lora_B.weight": torch.ones(37, 1),
    }


def test_nothing_waits(models, torch_side, fake_cuda, tmp_path):
    device, host = models
    path = adapter_file(tmp_path, host)
    fake_cuda.mode("lazy")
    before = waits(fake_cuda)
    report = lora_mmap.compose(device, [(path, 0.7)], non_blocking=True)
    assert waits(fake_cuda) == before
    assert report.is_pending
    assert differing(device, host) == []
    assert lora_mmap.compose(host, [(path, 0.7)], non_blocking=True)
    assert differing(device, host)
    assert report.wait() is report
    assert not report.is_pending
    assert differing(device, host) == []
    assert sum(tier["modules"] for tier in report.restore.values()) == 7
    assert set(report.stages) >= {"open", "index", "plan", "read", "save", "fuse", "restore"}


def test_one_wait_for_all_windows(models, fake_cuda, tmp_path, monkeypatch):
    """As long as the ring has slots: more windows wait for the copies, never for what is fused."""
    from lora_mmap.cuda import device_stream

    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 6 << 10)
    before, launches = waits(fake_cuda), fake_cuda.calls.get("cuLaunchKernel", 0)
    lora_mmap.compose(models[0], [(adapter_file(tmp_path, models[1]), 0.001)])
    assert fake_cuda.calls["cuLaunchKernel"] - launches >= 4
    after = waits(fake_cuda)
    assert sum(after.values()) - sum(before.values()) == 1


@pytest.mark.parametrize("ask", [bool, str, lambda report: report.to_dict(), lambda report: report.wait()])
def test_whoever_asks_settles_it(models, fake_cuda, tmp_path, ask):
    fake_cuda.mode("lazy")
    report = lora_mmap.compose(models[0], [(adapter_file(tmp_path, models[1]), 0.7)], non_blocking=True)
    assert ask(report)
    assert not report.is_pending


def test_an_overflow_is_put_back_and_raised_when_asked(models, torch_side, fake_cuda, hopeless, sha256):
    device, _ = models
    fake_cuda.mode("lazy")
    before = sha256(device)
    report = lora_mmap.compose(device, [(hopeless, 1.0)], non_blocking=True)
    for _ in range(2):
        with pytest.raises(FusionOverflowError, match=r"'brain\.weight'"):
            report.wait()
    torch_side.synchronize()
    assert sha256(device) == before
    assert not lora_mmap.reset(device)


@pytest.mark.parametrize("then", ["compose", "reset", "strength"])
def test_the_next_call_on_the_model_raises_it(models, torch_side, fake_cuda, hopeless, tmp_path, sha256, then):
    """The composition before it is back: the call after that goes on from there."""
    device, host = models
    path = adapter_file(tmp_path, host, seed=4)
    for model in models:
        lora_mmap.compose(model, [(path, 1.0)])
    fake_cuda.mode("lazy")
    torch_side.synchronize()
    before = sha256(device)
    lora_mmap.compose(device, [(hopeless, 1.0)], non_blocking=True)
    calls = {
        "compose": lambda: lora_mmap.compose(device, [(path, 1.0)]),
        "reset": lambda: lora_mmap.reset(device),
        "strength": lambda: lora_mmap.set_lora_strength_v2(device, 1.0),
    }
    with pytest.raises(FusionOverflowError):
        calls[then]()
    torch_side.synchronize()
    assert sha256(device) == before
    for model in models:
        lora_mmap.set_lora_strength_v2(model, 0.5)
    torch_side.synchronize()
    assert differing(device, host) == []


def test_compositions_that_follow_each_other(models, torch_side, fake_cuda, tmp_path, sha256):
    fake_cuda.mode("random", 4)
    device, host = models
    pristine = sha256(host)
    for seed in range(3):
        path = adapter_file(tmp_path, host, seed=seed, rank=seed + 1)
        for model in models:
            lora_mmap.compose(model, [(path, 0.7)], non_blocking=True)
    lora_mmap.reset(host)
    lora_mmap.reset(device)
    torch_side.synchronize()
    assert sha256(device) == sha256(host) == pristine
