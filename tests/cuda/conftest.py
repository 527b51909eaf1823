"""Every test here runs on the fake driver, and leaves nothing behind on it."""

import gc
import os

import numpy as np
import pytest
from fake_driver import FakeCuda, build
from fake_torch import FakeTorch

from lora_mmap import _C

FAKE = build()

# The driver is loaded once per process, so before another test asks for it. Processes started later find their own.
os.environ["LORA_MMAP_LIBCUDA"] = str(FAKE / "libcuda.so.1")
_C.cuda_driver()
del os.environ["LORA_MMAP_LIBCUDA"]


@pytest.fixture(scope="session")
def fake_cuda_folder():
    return FAKE


@pytest.fixture
def fake_cuda():
    fake = FakeCuda(FAKE / "libcuda.so.1")
    fake.reset()
    yield fake
    fake.fail(0)
    fake.close()
    if fake.counts["events"]:
        gc.collect()  # an exception still holds the frame that holds an event
    for device in range(2):
        _C.cuda_clear(device)
    assert fake.violations == []
    assert fake.context_depth() == 0
    left = fake.counts
    names = ("pinned", "pinned_nbytes", "events", "pending", "contexts_pushed")
    assert {name: left[name] for name in names} == dict.fromkeys(names, 0)
    assert left["streams"] <= 2  # a copy stream a device
    assert left["modules"] <= 2
    assert _C.cuda_pinned_nbytes() == 0


@pytest.fixture
def torch_side(fake_cuda, monkeypatch):
    side = FakeTorch(fake_cuda)
    side.install(monkeypatch)
    yield side
    side.close()


@pytest.fixture(scope="session")
def content():
    return np.random.default_rng(11).integers(0, 256, (44 << 20) + 12345, dtype=np.uint8).tobytes()


@pytest.fixture(scope="session")
def path(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "x.bin"
    path.write_bytes(content)
    return path
