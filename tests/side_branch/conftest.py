import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """These models are too small for two threads to help, and waiting for one another costs more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
