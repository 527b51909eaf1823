"""Which compiler makes the images. Scripts stand in for nvcc: they name a release and copy a file."""

import pytest
from compile_images import choice, table
from compile_images.choice import choose
from compile_images.compilers import Image
from compile_images.request import BuildError, Request

SCRIPT = """#!/bin/sh
case "$*" in
  --version) echo "Cuda compilation tools, release {release}, V{release}.1" ;;
  --list-gpu-code) printf 'sm_75\\nsm_80\\nsm_86\\nsm_89\\nsm_90\\nsm_100\\nsm_120\\n' ;;
  *) {compile} ;;
esac
"""
WORKS = 'while [ "$1" != -o ]; do shift; done; echo image > "$2"'
FAILS = 'echo "cicc: not found" >&2; exit 1'


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """No compiler but those that a test puts there."""
    monkeypatch.setattr(choice, "_USUAL_HOME", str(tmp_path / "usual"))
    monkeypatch.setattr(choice, "_package_folders", lambda: [str(tmp_path / "packages")])
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path' / 'bin'}:/usr/bin:/bin")


@pytest.fixture
def nvcc(tmp_path):
    def put(place, release, compiles=WORKS):
        file = tmp_path / place / "bin" / "nvcc"
        file.parent.mkdir(parents=True)
        file.write_text(SCRIPT.format(release=release, compile=compiles))
        file.chmod(0o755)
        return file

    return put


@pytest.fixture
def broken_nvrtc(tmp_path):
    """A wheel whose library does not load."""
    metadata = tmp_path / "packages" / "nvidia_cuda_nvrtc_cu12-12.8.93.dist-info"
    library = tmp_path / "packages" / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    metadata.mkdir(parents=True)
    library.parent.mkdir(parents=True)
    library.write_text("not a library")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cuda-nvrtc-cu12\nVersion: 12.8.93\n")
    (metadata / "RECORD").write_text("nvidia/cuda_nvrtc/lib/libnvrtc.so.12,,\n")
    return library


def test_auto_builds_without_images_where_nothing_is():
    found = choose(Request.parse("auto"))
    assert (found.compiler, found.images, found.toolkit) == (None, (), None)
    assert found.why == "no CUDA images: no nvcc 13.x and no NVRTC wheel is here"


def test_off_does_not_look(nvcc):
    nvcc("path", "13.0")
    assert choose(Request.parse("off")).why == "no CUDA images: LORA_MMAP_CUDA=off"


def test_auto_takes_an_nvcc_13(nvcc):
    path = nvcc("path", "13.1")
    found = choose(Request.parse("auto", "80;90"))
    assert found.toolkit == (13, 1)
    assert found.images == (Image(80), Image(90), Image(90, ptx=True))
    assert found.why == f"CUDA images sm_80, sm_90, compute_90 by nvcc 13.1 at {path} (what is here)"


def test_path_then_cuda_home_then_the_usual_place(nvcc, monkeypatch, tmp_path):
    usual = nvcc("usual", "13.0")
    assert choose(Request.parse("auto")).compiler.path == usual
    home = nvcc("home", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert choose(Request.parse("auto")).compiler.path == home
    path = nvcc("path", "13.0")
    assert choose(Request.parse("auto")).compiler.path == path


def test_a_named_release_is_looked_for_everywhere(nvcc):
    nvcc("path", "13.1")
    usual = nvcc("usual", "13.0")
    assert choose(Request.parse("13.0")).compiler.path == usual


def test_auto_passes_over_what_does_not_work_and_says_why(nvcc, broken_nvrtc):
    nvcc("path", "13.0", compiles=FAILS)
    old = nvcc("usual", "12.4")
    found = choose(Request.parse("auto"))
    assert found.compiler is None
    assert "cicc: not found" in found.why
    assert f"not nvcc 12.4 at {old}" in found.why
    assert f"{broken_nvrtc} does not load" in found.why


def test_an_nvcc_12_does_not_make_the_images_of_nvrtc(nvcc):
    path = nvcc("path", "12.8")
    with pytest.raises(BuildError) as error:
        choose(Request.parse("12.8"))
    assert str(error.value) == (
        "LORA_MMAP_CUDA=12.8 is not here: pip install 'nvidia-cuda-nvrtc-cu12==12.8.*'. Found: nvcc 12.8 at "
        + str(path)
    )


def test_a_named_release_that_is_not_here(nvcc):
    with pytest.raises(BuildError) as error:
        choose(Request.parse("13.0"))
    assert str(error.value) == (
        "LORA_MMAP_CUDA=13.0 is not here: put nvcc 13.0 on PATH or set CUDA_HOME, or"
        " pip install 'nvidia-cuda-nvrtc==13.0.*'. Found: no nvcc and no NVRTC"
    )


def test_an_arch_that_the_compiler_does_not_know(nvcc):
    path = nvcc("path", "13.0")
    with pytest.raises(BuildError) as error:
        choose(Request.parse("13.0", "80;130"))
    assert str(error.value) == (
        f"LORA_MMAP_CUDA_ARCHS: nvcc 13.0 at {path} does not know 130; it knows 75, 80, 86, 89, 90, 100, 120"
    )


def test_the_files_of_a_choice_are_written_only_when_they_change(nvcc, tmp_path):
    nvcc("path", "13.0")
    out = tmp_path / "out"

    def written(archs):
        table.write(choose(Request.parse("13.0", archs)), out)
        return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}

    first = written("80")
    assert set(first) == {"choice.cmake", "image_table.cpp"}
    assert written("80") == first
    assert written("80;90") != first
