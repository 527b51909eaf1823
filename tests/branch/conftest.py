import pytest
import torch

from lora_mmap import _C


@pytest.fixture(params=_C.isas())
def isa(request):
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(16)
