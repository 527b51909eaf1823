"""The caller's floating-point modes change no bit of a result and come back as they were."""

import pytest
import torch

from lora_mmap import _C


@pytest.fixture
def flushing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush")
    yield
    torch.set_flush_denormal(False)


def subnormal_job():
    """Weights, factors, products and results that flushing would turn into zeros."""
    generator = torch.Generator().manual_seed(1)
    down = torch.randint(1, 128, (9, 70), generator=generator, dtype=torch.int16).view(torch.bfloat16)
    up = torch.randint(1, 1024, (50, 9), generator=generator, dtype=torch.int16).view(torch.float16)
    weight = torch.randint(-9999, 9999, (50, 70), generator=generator, dtype=torch.int32).abs().view(torch.float32)
    term = (down.data_ptr(), "BF16", 70, 1, up.data_ptr(), "F16", 9, 1, 9, 0, 0, 2.0**23)
    address = weight.data_ptr()
    return weight, (down, up), (address, address, 50, 70, 70, 1, 70, 1, "F32", [term])


@pytest.mark.parametrize("threads", [1, 3])
def test_flushing_changes_no_bit(isa, threads, request):
    wanted, _keep, job = subnormal_job()
    before = wanted.clone()
    assert _C.fuse([job], 1, isa) == []
    assert not torch.equal(wanted.view(torch.int32), before.view(torch.int32))

    request.getfixturevalue("flushing")
    weight, _keep_too, job = subnormal_job()
    assert _C.fuse([job] + [(*job[:2], 0, *job[3:])] * 3, threads, isa) == []
    assert torch.equal(weight.view(torch.int32), wanted.view(torch.int32))
    tiny = torch.tensor([1e-40]) * torch.tensor([1.0])
    assert tiny.view(torch.int32).item() == 0  # still flushing here
