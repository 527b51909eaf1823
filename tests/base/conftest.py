import pytest

from lora_mmap import _C


@pytest.fixture(params=_C.isas())
def isa(request):
    return request.param
