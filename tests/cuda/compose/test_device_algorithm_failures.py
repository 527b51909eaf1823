"""Whatever fails while factors, gains or weights are made on a device, every weight keeps its bytes."""

import copy
import re

import pytest
import torch
from composing import every_layer, tensors_for
from device_models import differing
from every_algorithm import ALGORITHMS, Filled
from test_device_failures import OUT_OF_MEMORY, error_of, functions_called

import lora_mmap
from lora_mmap.errors import FusionOverflowError

MADE = ("LoCon in Tucker form", "DoRA, rows", "DoRA, input channels", "LoKr")


@pytest.fixture
def twins(torch_side):
    host = every_layer(torch.float16)
    return torch_side.move(copy.deepcopy(host)), host


def several(model, names=MADE):
    return [(tensors_for(model, ALGORITHMS[name], Filled(torch.float16, seed)), 0.5) for seed, name in enumerate(names)]


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_every_call_of_the_driver_fails_once(twins, torch_side, fake_cuda, sha256, mode):
    fake_cuda.mode(mode)
    device, host = twins
    before, adapters = sha256(device), several(host)
    lora_mmap.compose(device, adapters)
    lora_mmap.reset(device)
    called = functions_called(fake_cuda, lambda: lora_mmap.compose(device, adapters))
    lora_mmap.reset(device)
    assert {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemsetD8Async"} <= set(called)
    for function, count in called.items():
        for nth in range(1, count + 1):
            fake_cuda.fail(nth, function, OUT_OF_MEMORY)
            error = error_of(lambda: lora_mmap.compose(device, adapters))
            reached = fake_cuda.failed
            fake_cuda.fail(0)
            torch_side.synchronize()
            if reached:
                assert re.search(rf"{function}.* failed .*CUDA_ERROR_OUT_OF_MEMORY", error), f"call {nth}"
                assert sha256(device) == before, f"call {nth} of {function}"
            else:
                lora_mmap.reset(device)
    for model in twins:
        lora_mmap.compose(model, adapters)
    torch_side.synchronize()
    assert differing(*twins) == []


def spoiled(host, name, ending, value):
    """An adapter of one algorithm on one convolution, with one value of one tensor replaced."""
    tensors = tensors_for(host, ALGORITHMS[name], Filled(torch.float32), only=("image",))
    tensors[f"image.{ending}"].view(-1)[0] = value
    return tensors


@pytest.mark.parametrize(
    ("name", "ending", "value"),
    [
        ("LoCon in Tucker form", "lora_mid.weight", 3e38),
        ("DoRA, rows", "dora_scale", float("inf")),
        ("DoRA, input channels", "dora_scale", float("nan")),
        ("LoHa", "hada_w1_a", 1e30),
        ("full difference", "diff", 1e6),
    ],
)
@pytest.mark.parametrize("non_blocking", [False, True])
def test_an_overflow_is_put_back(twins, torch_side, fake_cuda, sha256, name, ending, value, non_blocking):
    """Of a factor that is made first, of a gain, of a weight: found on the device and raised as on the CPU."""
    fake_cuda.mode("lazy")
    host = twins[1]
    fine, hopeless = several(host), (spoiled(host, name, ending, value), 1.0)
    for model in twins:
        lora_mmap.compose(model, fine)
        torch_side.synchronize()
        before = sha256(model)
        with pytest.raises(FusionOverflowError, match=r"'image\.weight'"):
            lora_mmap.compose(model, [*fine, hopeless], non_blocking=non_blocking).wait()
        torch_side.synchronize()
        assert sha256(model) == before
        lora_mmap.compose(model, fine[:2])
    torch_side.synchronize()
    assert differing(*twins) == []


def test_an_infinite_weight_under_a_norm_is_an_overflow(twins, torch_side, sha256):
    """An infinite norm would make a gain of 0 and with it a row of zeros."""
    host = twins[1]
    for model in twins:
        with torch.no_grad():
            model.inner.weight[2, 3] = float("inf")
        before = sha256(model)
        adapter = tensors_for(host, ALGORITHMS["DoRA, rows"], Filled(torch.float16), only=("inner",))
        with pytest.raises(FusionOverflowError, match=r"'inner\.weight'"):
            lora_mmap.compose(model, [(adapter, 1.0)])
        torch_side.synchronize()
        assert sha256(model) == before


def test_memory_is_told_and_given_back(twins, torch_side):
    """The arena counts what is made on the device; afterwards only the copy that undoes is held."""
    device, host = twins
    torch_side.reset_peak()
    before = torch_side.held[0]
    report = lora_mmap.compose(device, several(host))
    tables = 64 << 10
    told = report.memory["arena"] + report.memory["restore"]
    assert torch_side.peak[0] - before <= told + tables
    assert torch_side.held[0] - before <= report.memory["restore"] + 64 * report.weights
    lora_mmap.reset(device)
    assert torch_side.held[0] == before


def test_what_is_made_is_counted(torch_side):
    """The down factor of a Tucker form, on the device for one window."""
    host = torch.nn.Sequential(torch.nn.Conv2d(1024, 16, 3, bias=False)).half()
    rank, ones = 64, (1, 1)
    shapes = {"down": (rank, 1024, *ones), "mid": (rank, rank, 3, 3), "up": (16, rank, *ones)}
    filled = Filled(torch.float16)
    tensors = {f"0.lora_{name}.weight": filled(*shape) for name, shape in shapes.items()}
    device = torch_side.move(copy.deepcopy(host))
    torch_side.reset_peak()
    before = torch_side.held[0]
    report = lora_mmap.compose(device, [(tensors, 1.0)], strict=True)
    factor = rank * 1024 * 9 * 4
    assert factor <= report.memory["arena"] <= factor + (1 << 20)
    assert torch_side.peak[0] - before <= report.memory["arena"] + report.memory["restore"] + (16 << 10)
    lora_mmap.compose(host, [(tensors, 1.0)])
    torch_side.synchronize()
    assert differing(device, host) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["scratch", "index_map", "_gains"])
def test_interrupted(twins, torch_side, fake_cuda, sha256, monkeypatch, name, error):
    from lora_mmap.cuda import device_stream
    from lora_mmap.device_steps import DeviceSteps

    fake_cuda.mode("lazy")
    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    device, host = twins
    before = sha256(device)
    owner = DeviceSteps if name == "_gains" else device_stream.DeviceStream
    original = getattr(owner, name)
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return original(*arguments)

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(error):
        lora_mmap.compose(device, several(host))
    torch_side.synchronize()
    assert sha256(device) == before
