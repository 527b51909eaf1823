import pytest
import torch
from emulator import emulator


@pytest.fixture(scope="session", params=[75, 90], ids=lambda arch: f"sm_{arch}")
def gpu(request):
    return emulator(request.param)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(31)
