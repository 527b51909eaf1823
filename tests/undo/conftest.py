import pytest
import torch

from lora_mmap import _C


@pytest.fixture(params=_C.isas())
def isa(request):
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(61)


@pytest.fixture(autouse=True)
def no_fault_left_armed():
    yield
    for point in ("encode", "tile", "fit"):
        _C.arm_fault(point, 0)
