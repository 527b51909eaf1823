"""What the built extension carries."""

import re
from importlib.metadata import version

import pytest

import lora_mmap
from lora_mmap import _C
from lora_mmap.errors import ArgumentError

TABLE = _C.images()


def test_it_is_complete_or_empty():
    assert set(TABLE) == {"compiler", "toolkit", "archs", "ptx", "nbytes"}
    if TABLE["toolkit"] is None:
        assert TABLE == {"compiler": "", "toolkit": None, "archs": [], "ptx": None, "nbytes": 0}
    else:
        assert TABLE["compiler"] in ("nvcc", "nvrtc")
        assert TABLE["archs"] == sorted(set(TABLE["archs"]))
        assert TABLE["ptx"] == TABLE["archs"][-1]


@pytest.mark.parametrize("arch", TABLE["archs"])
def test_each_cubin_is_for_the_arch_that_the_table_says(arch, arch_of):
    assert arch_of(_C.cuda_image_bytes(arch), ptx=False) == arch


@pytest.mark.skipif(TABLE["ptx"] is None, reason="this build carries no CUDA images")
def test_the_ptx_is_for_the_highest_arch_and_ends_with_a_nul(arch_of):
    text = _C.cuda_image_bytes(TABLE["ptx"], ptx=True)
    assert text[-1] == 0
    assert text.count(b"\0") == 1
    assert arch_of(text[:-1], ptx=True) == TABLE["ptx"]


def test_nbytes_counts_every_image():
    cubins = sum(len(_C.cuda_image_bytes(arch)) for arch in TABLE["archs"])
    ptx = len(_C.cuda_image_bytes(TABLE["ptx"], ptx=True)) if TABLE["ptx"] else 0
    assert TABLE["nbytes"] == cubins + ptx


def test_every_image_has_the_same_kernels():
    """By the names of their sections: a kernel left out of one arch would show only on that device."""
    names = [set(re.findall(rb"\.text\.(\w+)", _C.cuda_image_bytes(arch))) for arch in TABLE["archs"]]
    assert all(kernels == names[0] for kernels in names)
    if TABLE["ptx"]:
        entries = re.findall(rb"\.entry\s+(\w+)", _C.cuda_image_bytes(TABLE["ptx"], ptx=True))
        assert entries
        assert set(entries) == names[0]


@pytest.mark.parametrize("arch", TABLE["archs"])
def test_a_device_gets_its_own_image(arch):
    major, minor = divmod(arch, 10)
    assert _C.cuda_image_for(major, minor, 13000) == (f"sm_{arch}", "")


def test_what_is_not_there_is_an_error():
    with pytest.raises(ArgumentError, match=r"\[cuda_image_bytes\] this build has no such image: PTX compute_10$"):
        _C.cuda_image_bytes(10, ptx=True)


def test_the_version_names_the_images_or_nothing():
    installed = version("lora_mmap")
    expected = "+cu" + TABLE["toolkit"].replace(".", "") if TABLE["toolkit"] else "+cpu"
    assert installed in (lora_mmap.__version__, lora_mmap.__version__ + expected)
