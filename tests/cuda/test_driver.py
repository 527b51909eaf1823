"""What is said where there is no driver, no device, or not the right one."""

import pytest
from fresh_process import run

from lora_mmap import _C
from lora_mmap.errors import CudaError

PRINT = """
print(_C.cuda_driver())
print(error_of(_C.cuda_prepare, 0, 0, False))
print(error_of(_C.cuda_prepare, 0, 0, False) == error_of(_C.cuda_prepare, 0, 0, False))
print(_C.cuda_clear(0), _C.cuda_pinned_nbytes())
"""
FAKE = """
fake = ctypes.CDLL(os.environ["LORA_MMAP_LIBCUDA"])
"""


def test_no_driver():
    has_one = """
try:
    ctypes.CDLL("libcuda.so.1")
    print("this machine has a CUDA driver")
except OSError:
    print()
"""
    skip, report, error, again, nothing = run(has_one + PRINT, None)
    if skip:
        pytest.skip(skip)
    assert "'loaded': False, 'version': (0, 0), 'devices': 0" in report
    assert error.startswith("[cuda_prepare] there is no CUDA driver on this machine: libcuda.so.1: cannot open")
    assert (again, nothing) == ("True", "0 0")


def test_the_driver_that_is_named_does_not_load(tmp_path):
    report, error, again, _ = run(PRINT, tmp_path / "none.so")
    assert "'loaded': False" in report
    assert error.startswith("[cuda_prepare] the driver that LORA_MMAP_LIBCUDA names does not load: ")
    assert "none.so" in error
    assert again == "True"


def test_too_old_a_driver(fake_cuda_folder):
    report, error, _, _ = run(PRINT, fake_cuda_folder / "libold_cuda.so.1")
    assert "'loaded': True, 'version': (9, 2), 'devices': 0" in report
    assert error == (
        "[cuda_prepare] the CUDA driver is too old: it speaks CUDA 9.2 and has no cuGetErrorName; update it (the "
        "kernels need 525 or newer)"
    )


def test_no_device(fake_cuda_folder):
    report, error, _, _ = run(FAKE + "fake.fake_set_devices(0)" + PRINT, fake_cuda_folder / "libcuda.so.1")
    assert "'loaded': True, 'version': (13, 0), 'devices': 0" in report
    assert error == "[cuda_prepare] the CUDA driver finds no device (CUDA_VISIBLE_DEVICES can hide them)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (34, "the libcuda that was found is the toolkit's stub, not a driver"),
        (700, "cuInit failed on cuda:0: CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)"),
    ],
)
def test_the_driver_does_not_start(fake_cuda_folder, code, said):
    fail = f"""
fake.fake_fail(b"cuInit", ctypes.c_uint64(1), {code})
print(error_of(_C.cuda_prepare, 0, 0, False))
"""
    error = run(FAKE + fail + PRINT, fake_cuda_folder / "libcuda.so.1")[0]
    assert error.startswith(f"[cuda_prepare] {said}")


def test_a_driver_without_cu_get_proc_address(fake_cuda_folder):
    """The `_v2` names by dlsym: the fake driver's first versions of them refuse."""
    code = """
fake.fake_hide_proc_address()
fake.fake_violations.restype = fake.fake_counts.restype = ctypes.c_char_p
print(error_of(_C.cuda_prepare, 0, 0, False), fake.fake_violations(), b'"cuCtxPushCurrent": 1' in fake.fake_counts())
"""
    assert run(FAKE + code, fake_cuda_folder / "libcuda.so.1") == ["None b'[]' True"]


def test_nothing_is_loaded_until_it_is_asked_for(fake_cuda_folder):
    code = """
del sys.modules["lora_mmap"]
import lora_mmap
loaded = lambda: "libcuda" in open("/proc/self/maps").read()
print(loaded(), _C.cuda_clear(0), _C.cuda_pinned_nbytes(), loaded(), _C.cuda_driver()["loaded"], loaded())
"""
    assert run(code, fake_cuda_folder / "libcuda.so.1") == ["False 0 0 False True True"]


def test_the_driver_as_it_is(fake_cuda):
    assert _C.cuda_driver() == {"loaded": True, "version": (13, 0), "devices": 2, "why": None}


def test_what_a_device_is(fake_cuda):
    fake_cuda.lib.fake_set_device(1, b"Fake A3", 7, 5)
    device = _C.cuda_device(1)
    assert (device["name"], device["capability"], device["multiprocessors"]) == ("Fake A3", (7, 5), 4)
    assert device["memory"] == 1 << 33
    assert (device["image"] is None) == (device["why"] is not None)
    fake_cuda.lib.fake_set_device(1, b"Fake H1", 9, 0)
    assert "cuDevicePrimaryCtxRetain" not in fake_cuda.calls


@pytest.mark.parametrize("device", [2, 255, -1])
def test_there_is_no_such_device(fake_cuda, device):
    for function in (_C.cuda_device, lambda device: _C.cuda_prepare(device, 0, False)):
        with pytest.raises(CudaError, match=rf"\] there is no cuda:{device}: the driver sees 2 devices$"):
            function(device)


def test_a_device_that_nobody_uses_gets_no_context(fake_cuda_folder):
    code = """
fake.fake_set_devices(3)
fake.fake_violations.restype = ctypes.c_char_p
print(error_of(_C.cuda_prepare, 2, 0, False))
fake.fake_activate(2, 1)
print(error_of(_C.cuda_prepare, 2, 0, False), fake.fake_violations())
"""
    first, second = run(FAKE + code, fake_cuda_folder / "libcuda.so.1")
    assert first == (
        "[cuda_prepare] cuda:2 has no active context in this process: use it through torch first, torch.cuda.init() "
        "and a tensor on it will do"
    )
    assert second == "None b'[]'"


def test_no_kernels_for_the_device(fake_cuda_folder):
    code = """
fake.fake_set_device(0, b"Fake G0", 3, 5)
print(error_of(_C.cuda_prepare, 0, 0))
print(error_of(_C.cuda_prepare, 0, 0, False))
print(_C.cuda_device(0)["image"], _C.cuda_device(0)["why"])
"""
    first, second, third = run(FAKE + code, fake_cuda_folder / "libcuda.so.1")
    assert first.startswith("[cuda_prepare] no kernels for cuda:0 (Fake G0): ")
    assert second == "None"
    assert third == "None " + first.partition("(Fake G0): ")[2]
