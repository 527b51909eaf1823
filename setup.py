"""Builds lora_mmap._C with CMake. Never imports torch: the extension links neither libtorch nor CUDA."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc" / "cuda" / "images"))
from compile_images import choice, request  # noqa: E402


def version() -> str:
    """The package's, with a label that names the images: every hook of a build works it out by itself, alike."""
    released = re.search(r'^__version__ = "(.+)"$', (ROOT / "lora_mmap" / "__init__.py").read_text(), re.MULTILINE)[1]
    wish = os.environ.get("LORA_MMAP_LABEL", "")
    from_sdist = (ROOT / "PKG-INFO").exists()
    if "sdist" in sys.argv or request.label(None, wish, from_sdist) == "":
        return released
    wanted = request.Request.from_environment()
    toolkit = wanted.toolkit or choice.choose(wanted).toolkit
    return released + request.label(toolkit, wish, from_sdist)


class CMakeExtension(Extension):
    """An extension whose sources are listed in CMakeLists.txt, not here."""

    def __init__(self, name: str) -> None:
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    """Configures and builds one CMake target, placing the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        output = (ROOT / self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / ext.name
        build.mkdir(parents=True, exist_ok=True)
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            *generator,
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *os.environ.get("CMAKE_ARGS", "").split(),
            # Last, and from the environment only: the version's label is made from the same.
            f"-DLORA_MMAP_CUDA={os.environ.get('LORA_MMAP_CUDA') or 'auto'}",
            f"-DLORA_MMAP_CUDA_ARCHS={os.environ.get('LORA_MMAP_CUDA_ARCHS', '')}",
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)], check=True)


try:
    setup(
        version=version(),
        setup_requires=request.Request.from_environment().build_requirements(),
        ext_modules=[CMakeExtension("lora_mmap._C")],
        cmdclass={"build_ext": CMakeBuild},
    )
except request.BuildError as error:
    sys.exit(str(error))
