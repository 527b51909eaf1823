import pytest
import torch

from lora_mmap import _C


@pytest.fixture(params=_C.isas())
def isa(request):
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(16)


@pytest.fixture(autouse=True)
def torch_on_one_thread():
    """Tensors this small gain nothing, and where the machine is busy torch's threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
