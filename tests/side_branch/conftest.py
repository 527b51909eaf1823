import pytest
import torch
from composed_linears import adapters


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """These models are too small for two threads to help, and waiting for one another costs more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def entries(tmp_path):
    """What is composed into the model of int8_linears.py."""
    return adapters(tmp_path)
