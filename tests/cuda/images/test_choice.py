"""Which image a device gets, over made-up tables."""

import pytest

from lora_mmap import _C

CU128 = {"archs": [75, 80, 86, 89, 90, 100, 120], "ptx": [120], "toolkit": (12, 8)}
CU126 = {"archs": [75, 80, 86, 89, 90], "ptx": [90], "toolkit": (12, 6)}
CU130 = {"archs": [75, 80, 86, 89, 90, 100, 120], "ptx": [120], "toolkit": (13, 0)}
ONLY_75 = {"archs": [75], "ptx": [75], "toolkit": (12, 8)}


def choose(table, major, minor, driver):
    return _C.choose_cuda_image(**table, capability=(major, minor), driver=driver)


@pytest.mark.parametrize(
    ("capability", "image"),
    [
        ((7, 5), "sm_75"),
        ((8, 0), "sm_80"),
        ((8, 6), "sm_86"),
        ((8, 7), "sm_86"),  # Orin: the highest minor version below
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90"),
        ((10, 0), "sm_100"),
        ((10, 3), "sm_100"),
        ((12, 0), "sm_120"),
        ((12, 1), "sm_120"),
    ],
)
def test_the_cubin_of_the_same_major_version_and_no_higher_minor(capability, image):
    assert choose(CU128, *capability, driver=12080) == (image, "")


def test_a_cubin_runs_under_any_driver_of_its_major_version():
    assert choose(CU128, 9, 0, driver=12000) == ("sm_90", "")
    assert choose(CU126, 9, 0, driver=13000) == ("sm_90", "")


def test_a_cubin_of_a_higher_minor_version_does_not_run():
    table = {"archs": [86, 89], "ptx": [89], "toolkit": (12, 8)}
    assert choose(table, 8, 0, driver=12080) == (
        None,
        "no image fits compute capability 8.0; on board: sm_86, sm_89, PTX compute_89",
    )


def test_other_major_versions_take_the_ptx():
    assert choose(CU126, 12, 0, driver=12080) == ("PTX compute_90", "")
    assert choose(CU128, 13, 0, driver=13020) == ("PTX compute_120", "")
    assert choose(ONLY_75, 12, 0, driver=12080) == ("PTX compute_75", "")


def test_ptx_is_the_last_resort():
    table = {"archs": [80], "ptx": [86], "toolkit": (12, 8)}
    assert choose(table, 8, 6, driver=12080) == ("sm_80", "")


def test_the_highest_ptx_that_is_not_above_the_device():
    table = {"archs": [75], "ptx": [75, 86, 90, 120], "toolkit": (12, 8)}
    assert choose(table, 10, 0, driver=12080) == ("PTX compute_90", "")


def test_a_driver_older_than_the_toolkit_does_not_compile_its_ptx():
    assert choose(ONLY_75, 12, 0, driver=12040) == (
        None,
        "no image fits compute capability 12.0; on board: sm_75, PTX compute_75, whose PTX needs a driver for CUDA 12.8"
        " or newer; the driver is for CUDA 12.4",
    )


def test_devices_older_than_everything_on_board():
    found, why = choose(CU128, 7, 0, driver=12080)
    assert found is None
    assert why == (
        "no image fits compute capability 7.0; on board: sm_75, sm_80, sm_86, sm_89, sm_90, sm_100, sm_120,"
        " PTX compute_120"
    )


@pytest.mark.parametrize("table", [CU130, {"archs": [], "ptx": [75], "toolkit": (13, 0)}])
def test_a_driver_of_an_older_major_version_takes_nothing(table):
    assert choose(table, 9, 0, driver=12090) == (
        None,
        "images built with CUDA 13.0 need a driver for CUDA 13.0 or newer; the driver is for CUDA 12.9",
    )


def test_a_build_without_images():
    empty = {"archs": [], "ptx": [], "toolkit": (0, 0)}
    assert choose(empty, 9, 0, driver=13000) == (None, "this build of lora_mmap carries no CUDA images")
