"""Coders of corrections: all instruction sets write the same bytes, and read no further than they may."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fusion_reference import BITS, same_bits
from undo_steps import layer, record_of, step

from lora_mmap import _C

SOURCE = Path(__file__).with_name("coders")
ONE_CODER = 77


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is one coder")
def test_the_same_bytes(tmp_path):
    """Any density, width and length; with bounds of memory checked."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    compiler = f"-DCMAKE_CXX_COMPILER={shutil.which('c++')}"  # whatever others left in CXX
    configure = ["cmake", "-S", str(SOURCE), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=None", compiler]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path), "-j2"], check=True, capture_output=True)
    run = subprocess.run([str(tmp_path / "coders")], capture_output=True, text=True, timeout=600, check=False)
    if run.returncode == ONE_CODER:
        pytest.skip("needs AVX-512 and BMI2")
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]


def changed(generator, pristine, density, width):
    """Bits of ``pristine`` with about ``density`` of them moved by up to 2**width steps."""
    size = pristine.shape
    by = torch.randint(-(2**width), 2**width + 1, size, generator=generator)
    by[torch.rand(size, generator=generator) >= density] = 0
    return (pristine.view(BITS[pristine.itemsize]) + by.to(BITS[pristine.itemsize])).view(pristine.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cols", [1, 300, 1025])
def test_one_reads_what_the_other_wrote(generator, dtype, cols):
    """Records of the same length, whoever made them, and any kernel undoes them."""
    isas = _C.isas()
    for density in (0.0, 0.01, 0.1, 0.5, 1.0):
        for width in (0, 3, 9, 8 * dtype.itemsize - 2):
            pristine = torch.randn(5, cols, generator=generator).to(dtype)
            base = changed(generator, pristine, density, width)
            sizes = set()
            for writer, reader in zip(isas, [*isas[1:], isas[0]], strict=True):
                weight, record = pristine.clone(), record_of(pristine)
                _C.step([step(weight, new=layer([], record, base))], 1, writer)
                sizes.add(record.nbytes)
                assert same_bits(weight, base)
                _C.step([step(weight, layer([], record))], 1, reader)
                assert same_bits(weight, pristine)
            assert len(sizes) == 1
