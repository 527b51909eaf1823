"""Every CUDA compiler of this machine: what it makes of the kernels, and under which arithmetic. No GPU is needed."""

import re

import pytest
from compile_images import table
from compile_images.choice import candidates
from compile_images.compilers import Image
from compile_images.request import BuildError, default_archs

COMPILERS = list(candidates())
IMAGES = [
    pytest.param(compiler, Image(arch, ptx), id=f"{compiler.name}-{compiler.release[0]}.{compiler.release[1]}-{arch}-{ptx}")
    for compiler in COMPILERS
    for arch, ptx in [*((arch, False) for arch in default_archs(compiler.release)), (default_archs(compiler.release)[-1], True)]
]
every_compiler = pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: f"{compiler.name}-{compiler.path}")

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


@pytest.mark.parametrize(("compiler", "image"), IMAGES)
def test_the_kernels_compile_without_a_warning(compiler, image, kernels, arch_of):
    made, warnings = compiler.compile(kernels, kernels.parents[2], image)
    assert warnings.strip() == ""
    assert arch_of(made, image.ptx) == image.arch


@every_compiler
def test_products_and_sums_are_rounded_apart_and_nothing_is_flushed(compiler, source, tmp_path):
    made, _ = compiler.compile(source, tmp_path, Image(80, ptx=True))
    found = re.findall(r"\b(?:mul|add|fma|div|sqrt)\.[a-z.]*f32", made.decode())
    assert sorted(found) == ["add.f32", "div.rn.f32", "fma.rn.f32", "mul.f32", "sqrt.rn.f32"] or sorted(found) == [
        "add.rn.f32", "div.rn.f32", "fma.rn.f32", "mul.rn.f32", "sqrt.rn.f32"]


@every_compiler
@pytest.mark.parametrize("image", [Image(80), Image(80, ptx=True)], ids=["cubin", "ptx"])
def test_an_error_shows_what_the_compiler_said(compiler, source, tmp_path, image):
    source.write_text("extern \"C\" __global__ void broken() { nowhere(); }\n")
    with pytest.raises(BuildError, match=r'arithmetic\.cu\(1\): error: identifier "nowhere" is undefined'):
        compiler.compile(source, tmp_path, image)


def test_an_unchanged_choice_leaves_its_files_alone(tmp_path):
    from compile_images.choice import Choice

    first = Choice(COMPILERS[0], (Image(80), Image(80, ptx=True)), "")
    table.write(first, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    table.write(first, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
