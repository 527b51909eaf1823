"""Which compiler makes the images: the one asked for, or what is there."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .compilers import Compiler, Image, Nvcc, Nvrtc
from .request import NVRTC_RELEASES, BuildError, Request, default_archs

_USUAL_HOME = "/usr/local/cuda"
_NVRTC_PACKAGES = {"nvidia-cuda-nvrtc-cu12": "libnvrtc.so.12", "nvidia-cuda-nvrtc": "libnvrtc.so.13"}


@dataclass(frozen=True)
class Choice:
    """``compiler`` is None for a build without images. ``why`` is for people."""

    compiler: Compiler | None
    images: tuple[Image, ...]
    why: str

    @property
    def toolkit(self) -> tuple[int, int] | None:
        return self.compiler.release if self.compiler else None


def choose(request: Request) -> Choice:
    """Raises :class:`BuildError` where a release was named and is not here, or does not know an architecture."""
    if request.mode == "off":
        return Choice(None, (), "no CUDA images: LORA_MMAP_CUDA=off")
    compiler, why = _named(request.toolkit) if request.toolkit else _present()
    if compiler is None:
        return Choice(None, (), f"no CUDA images: {why}")
    archs = request.archs or default_archs(compiler.release)
    if unknown := [arch for arch in archs if arch not in compiler.archs]:
        known = ", ".join(str(arch) for arch in sorted(compiler.archs))
        raise BuildError(f"LORA_MMAP_CUDA_ARCHS: {_described(compiler)} does not know {unknown[0]}; it knows {known}")
    images = (*(Image(arch) for arch in archs), Image(archs[-1], ptx=True))
    names = ", ".join(image.target for image in images)
    return Choice(compiler, images, f"CUDA images {names} by {_described(compiler)} ({why})")


def candidates() -> Iterator[Compiler]:
    """All compilers that are here, in the order in which ``auto`` takes them: nvcc, then NVRTC."""
    seen = set()
    for path in (*_nvccs(), *_nvrtcs()):
        if path.is_file() and (real := path.resolve()) not in seen:
            seen.add(real)
            yield Nvcc(path) if path.name == "nvcc" else Nvrtc(path)


def _named(release: tuple[int, int]) -> tuple[Compiler, str]:
    there = []
    for compiler in candidates():
        try:
            fits = compiler.release == release and (release[0] > 12 or compiler.name == "nvrtc")
        except BuildError as error:
            there.append(_in_a_line(error))
            continue
        if fits:
            return compiler, f"LORA_MMAP_CUDA={release[0]}.{release[1]}"
        there.append(_described(compiler))
    major, minor = release
    package = f"nvidia-cuda-nvrtc-cu12=={major}.{minor}.*" if major == 12 else f"nvidia-cuda-nvrtc=={major}.{minor}.*"
    nvcc = "" if major == 12 else f"put nvcc {major}.{minor} on PATH or set CUDA_HOME, or "
    raise BuildError(
        f"LORA_MMAP_CUDA={major}.{minor} is not here: {nvcc}pip install '{package}'."
        f" Found: {'; '.join(there) or 'no nvcc and no NVRTC'}"
    )


def _present() -> tuple[Compiler | None, str]:
    passed_over: list[str] = []
    for compiler in candidates():
        try:
            known = compiler.release[0] == 13 or (compiler.name == "nvrtc" and compiler.release in NVRTC_RELEASES)
            if known:
                _try(compiler)
                return compiler, "; ".join(["what is here", *passed_over])
            passed_over.append(f"not {_described(compiler)}: 12.6, 12.8 and 12.9 by NVRTC and 13.x are supported")
        except BuildError as error:
            passed_over.append(_in_a_line(error))
    return None, "; ".join(passed_over) or "no nvcc 13.x and no NVRTC wheel is here"


def _try(compiler: Compiler) -> None:
    """An nvcc without its parts, or without a host compiler, shows only when it is used."""
    with tempfile.TemporaryDirectory(prefix="lora_mmap_") as scratch:
        source = Path(scratch, "trial.cu")
        source.write_text('extern "C" __global__ void trial(float* x) { *x = 1.0f; }\n')
        compiler.compile(source, source.parent, Image(default_archs(compiler.release)[0]))


def _nvccs() -> Iterator[Path]:
    if on_path := shutil.which("nvcc"):
        yield Path(on_path)
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), _USUAL_HOME):
        if home:
            yield Path(home, "bin", "nvcc")


def _nvrtcs() -> Iterator[Path]:
    for package, library in _NVRTC_PACKAGES.items():
        for found in importlib.metadata.distributions(name=package, path=_package_folders()):
            for file in found.files or ():
                if file.name == library:
                    yield Path(str(found.locate_file(file)))


def _package_folders() -> list[str]:
    """An isolated build hides the environment's own packages from sys.path, but not where they lie."""
    return list(dict.fromkeys([*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))


def _in_a_line(error: BuildError) -> str:
    return " ".join(str(error).split())


def _described(compiler: Compiler) -> str:
    return f"{compiler.name} {compiler.release[0]}.{compiler.release[1]} at {compiler.path}"
