"""``load_file`` and ``safe_open`` with ``device="cuda"``: through the ring, to memory of each tensor's own."""

import os

import pytest
import torch
from safetensors.torch import save_file

import lora_mmap
from lora_mmap import _C
from lora_mmap.errors import CudaError, ReadError
from lora_mmap.torch import load_file

CUDA = torch.device("cuda", 0)


@pytest.fixture(params=["lazy", "random"], autouse=True)
def order(request, fake_cuda):
    fake_cuda.mode(request.param, 11)


@pytest.fixture
def path(tmp_path):
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "large": torch.randn(700, 1000, generator=generator),
        "odd": torch.arange(7, dtype=torch.uint8),
        "half": torch.randn(33, 5, generator=generator).half(),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "brain": torch.randn(3, 40, 2, generator=generator).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        **{f"small.{i}": torch.randn(1 + i % 5, 16, generator=generator) for i in range(50)},
    }
    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def same(ours, theirs):
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(ours, theirs)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, CUDA], ids=str)
def test_the_tensors_of_the_cpu(torch_side, path, device):
    expected = load_file(path)
    found = load_file(path, device=device)
    torch_side.synchronize()
    assert list(found) == list(expected)
    assert all(same(found[name], expected[name]) for name in expected)
    for tensor in found.values():
        if tensor.numel():
            assert torch_side.device_of(tensor) == CUDA
            assert tensor.storage_offset() == 0
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_another_device(torch_side, path):
    found = load_file(path, device="cuda:1")
    torch_side.synchronize()
    assert torch_side.device_of(found["large"]) == torch.device("cuda", 1)
    assert same(found["large"], load_file(path)["large"])


def test_one_by_one_and_in_slices(torch_side, path, fake_cuda):
    fake_cuda.mode("eager")  # picking rows is torch's work, which does not wait for the fake's streams
    expected = load_file(path)
    with lora_mmap.safe_open(path, framework="pt", device="cuda") as file:
        for name in expected:
            whole = file.get_tensor(name)
            torch_side.synchronize()
            assert same(whole, expected[name])
        for item in (slice(3, 600, 7), (5, slice(10, 20)), slice(0, 0), 699, (..., 3)):
            part = file.get_slice("large")[item]
            torch_side.synchronize()
            assert same(part, expected["large"][item]), item


def test_many_small_tensors_in_a_handful_of_copies(torch_side, fake_cuda, tmp_path):
    tensors = {f"t.{i}": torch.full((64, 16), float(i)).half() for i in range(3000)}
    save_file(tensors, tmp_path / "many.safetensors")
    before, launches = _C.counters(), fake_cuda.calls.get("cuLaunchKernel", 0)
    found = load_file(tmp_path / "many.safetensors", device="cuda")
    issued = _C.counters()["copies_issued"] - before["copies_issued"]
    assert issued <= 3
    assert _C.counters()["bytes_uploaded"] - before["bytes_uploaded"] == 3000 * 64 * 16 * 2
    assert fake_cuda.calls["cuLaunchKernel"] - launches == 1
    torch_side.synchronize()
    assert all(same(found[name], tensor) for name, tensor in tensors.items())


def test_what_is_left_afterwards_is_the_tensors(torch_side, path):
    before = torch_side.held[0]
    found = load_file(path, device="cuda")
    held = torch_side.held[0] - before
    assert held == sum(tensor.nbytes for tensor in found.values())
    del found
    assert torch_side.held[0] == before


def test_tensors_may_go_before_their_bytes_came(torch_side, path, fake_cuda):
    """Dropping them at once is in order with the copies: nothing is written to what somebody else has then."""
    for _ in range(3):
        load_file(path, device="cuda")
    torch_side.synchronize()
    assert fake_cuda.violations == []


def test_a_file_that_was_cut_short(torch_side, path):
    with lora_mmap.safe_open(path, framework="pt", device="cuda") as file:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(ReadError):
            file.get_tensors()
    torch_side.synchronize()


def test_a_copy_that_fails(torch_side, path, fake_cuda):
    fake_cuda.fail(2, "cuMemcpyHtoDAsync", 2)
    with pytest.raises(CudaError, match="cuMemcpyHtoDAsync failed on cuda:0"):
        load_file(path, device="cuda")
    fake_cuda.fail(0)
    torch_side.synchronize()
    again = load_file(path, device="cuda")
    torch_side.synchronize()
    assert same(again["odd"], torch.arange(7, dtype=torch.uint8))


def test_a_device_without_an_image(torch_side, path, fake_cuda):
    """Loading needs no kernel: every tensor is then copied by itself."""
    expected = load_file(path)
    fake_cuda.lib.fake_set_device(0, b"Fake K1", 3, 5)
    try:
        found = load_file(path, device="cuda")
    finally:
        fake_cuda.lib.fake_set_device(0, b"Fake H1", 9, 0)
    torch_side.synchronize()
    assert all(same(found[name], expected[name]) for name in expected)
