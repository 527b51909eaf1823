"""The build's own modules, which are not part of the package, and a view of what its compilers make."""

import struct
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[3] / "csrc"
KERNELS = CSRC / "cuda" / "kernels" / "kernels.cu"
sys.path.insert(0, str(CSRC / "cuda" / "images"))

EM_CUDA = 190


def arch_of_cubin(cubin):
    """From the flags of the ELF header: their lowest byte up to CUDA 12.x (ABI 7), the one above since 13.0 (ABI 8)."""
    assert cubin[:4] == b"\x7fELF"
    (machine,) = struct.unpack_from("<H", cubin, 18)
    assert machine == EM_CUDA
    (flags,) = struct.unpack_from("<I", cubin, 48)
    shift = {7: 0, 8: 8}[cubin[8]]
    return flags >> shift & 0xFF


def arch_of_ptx(text):
    """From its .target line."""
    (target,) = [line for line in text.decode().splitlines() if line.startswith(".target")]
    return int(target.split()[1].removeprefix("sm_"))


@pytest.fixture
def arch_of():
    def read(image, ptx):
        return arch_of_ptx(image) if ptx else arch_of_cubin(image)

    return read


@pytest.fixture
def kernels():
    return KERNELS
