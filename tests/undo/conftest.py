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
    _C.arm_fault("encode", 0)
    _C.arm_fault("tile", 0)
