"""Every CUDA compiler of this machine: what it makes of the kernels, and under which arithmetic. No GPU is needed."""

import re

import pytest
from compile_images.choice import candidates
from compile_images.compilers import Image
from compile_images.request import BuildError, default_archs

from lora_mmap import _C

COMPILERS = list({(compiler.name, compiler.release): compiler for compiler in candidates()}.values())
TABLE = _C.images()


def named(compiler):
    return f"{compiler.name}-{compiler.release[0]}.{compiler.release[1]}"


def uncompiled():
    """All images of the compilers that did not make this build's own, which test_table.py looks at."""
    for compiler in COMPILERS:
        if named(compiler) != f"{TABLE['compiler']}-{TABLE['toolkit']}":
            archs = default_archs(compiler.release)
            for image in (*map(Image, archs), Image(archs[-1], ptx=True)):
                yield pytest.param(compiler, image, id=f"{named(compiler)}-{image.target}")


every_compiler = pytest.mark.parametrize("compiler", COMPILERS, ids=named)

ARITHMETIC = """
#include "constants.h"
extern "C" __global__ void arithmetic(float* x) {
  x[0] = x[1] * x[2] + x[3];
  x[4] = x[5] / x[6];
  x[7] = sqrtf(x[8]);
  x[9] = fmaf(x[10], x[11], kAddend);
}
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "constants.h").write_text("constexpr float kAddend = 3.0f;\n")
    file = tmp_path / "arithmetic.cu"
    file.write_text(ARITHMETIC)
    return file


def test_there_is_a_compiler():
    """`make test` installs one where there is none, so that the kernels are compiled everywhere."""
    assert COMPILERS


@pytest.mark.parametrize(("compiler", "image"), list(uncompiled()))
def test_the_kernels_compile_without_a_warning(compiler, image, kernels, arch_of):
    made, warnings = compiler.compile(kernels, kernels.parents[2], image)
    assert warnings.strip() == ""
    assert arch_of(made, image.ptx) == image.arch


@every_compiler
def test_products_and_sums_are_rounded_apart_and_nothing_is_flushed(compiler, source, tmp_path):
    made, _ = compiler.compile(source, tmp_path, Image(80, ptx=True))
    found = re.findall(r"\b(?:mul|add|fma|div|sqrt)\.[a-z.]*f32", made.decode())
    # An add that says how it rounds is not fused with a product, by ptxas or by the driver.
    assert sorted(found) == ["add.rn.f32", "div.rn.f32", "fma.rn.f32", "mul.rn.f32", "sqrt.rn.f32"]


@every_compiler
@pytest.mark.parametrize("image", [Image(80), Image(80, ptx=True)], ids=["cubin", "ptx"])
def test_an_error_shows_what_the_compiler_said(compiler, source, tmp_path, image):
    source.write_text('extern "C" __global__ void broken() { nowhere(); }\n')
    with pytest.raises(BuildError, match=r'arithmetic\.cu\(1\): error: identifier "nowhere" is undefined'):
        compiler.compile(source, tmp_path, image)
