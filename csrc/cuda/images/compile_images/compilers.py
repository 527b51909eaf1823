"""The compilers as this build uses them: nvcc as a program, NVRTC as a library. Neither needs a GPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from .request import BuildError

# The arithmetic contract: a * b + c is two roundings unless the source says fma, nothing is flushed, and
# division and square root are rounded correctly.
_ARITHMETIC = ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-std=c++17")


@dataclass(frozen=True)
class Image:
    """What to compile for: machine code of one architecture, or PTX that a driver compiles for later ones."""

    arch: int
    ptx: bool = False

    @property
    def target(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.arch}"


class Compiler(Protocol):
    """One compiler of one release. Failures are :class:`BuildError` with all that the compiler said."""

    name: str
    path: Path

    @property
    def release(self) -> tuple[int, int]: ...
    @property
    def archs(self) -> frozenset[int]: ...
    def compile(self, source: Path, include: Path, image: Image) -> tuple[bytes, str]:
        """The image, a PTX text without a NUL, and the warnings."""
        ...


class Nvcc:
    """The nvcc at ``path``."""

    name = "nvcc"

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def release(self) -> tuple[int, int]:
        said = self._run("--version")[0]
        found = re.search(r"release (\d+)\.(\d+)", said)
        if found is None:
            raise BuildError(f"{self.path} --version names no release:\n{said}")
        return int(found[1]), int(found[2])

    @cached_property
    def archs(self) -> frozenset[int]:
        return frozenset(int(arch) for arch in re.findall(r"sm_(\d+)\b", self._run("--list-gpu-code")[0]))

    def compile(self, source: Path, include: Path, image: Image) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory(prefix="lora_mmap_") as scratch:
            output = Path(scratch, "image")
            kind = "-ptx" if image.ptx else "-cubin"
            # The kernels take nothing from the host compiler, so its version does not matter.
            freedoms = ("-expt-relaxed-constexpr", "-allow-unsupported-compiler")
            options = (*_ARITHMETIC, *freedoms, f"-arch={image.target}", f"-I{include}")
            _, warnings = self._run(kind, *options, "-o", str(output), str(source))
            return output.read_bytes(), warnings

    def _run(self, *arguments: str) -> tuple[str, str]:
        command = [str(self.path), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise BuildError(f"{self.path} does not run: {error}") from error
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout, done.stderr


class Nvrtc:
    """The libnvrtc at ``path``, loaded into this process."""

    name = "nvrtc"

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _library(self) -> ctypes.CDLL:
        try:
            # It opens its builtins by name only, and not every wheel says where they lie.
            for builtins in self.path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(str(self.path))
        except OSError as error:
            raise BuildError(f"{self.path} does not load: {error}") from error
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library

    @cached_property
    def release(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    @cached_property
    def archs(self) -> frozenset[int]:
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        archs = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", archs)
        return frozenset(archs)

    def compile(self, source: Path, include: Path, image: Image) -> tuple[bytes, str]:
        program = ctypes.c_void_p()
        # Named by its path, so that it finds the headers beside it and messages point at it.
        arguments = (source.read_bytes(), str(source).encode(), 0, None, None)
        self._call("nvrtcCreateProgram", ctypes.byref(program), *arguments)
        try:
            # Functions that host and device share need no word of CUDA: here all code is the device's.
            given = (*_ARITHMETIC, "-default-device", f"-arch={image.target}", f"-I{include}", f"-I{source.parent}")
            options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            failed = self._library.nvrtcCompileProgram(program, len(given), options)
            log = self._text("ProgramLog", program).decode(errors="replace")
            if failed:
                raise BuildError(f"NVRTC does not compile {source} for {image.target}: {self._reason(failed)}\n{log}")
            return self._text("PTX" if image.ptx else "CUBIN", program), log
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, what: str, program: ctypes.c_void_p) -> bytes:
        nbytes = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(nbytes))
        text = ctypes.create_string_buffer(nbytes.value)
        self._call(f"nvrtcGet{what}", program, text)
        return text.raw if what == "CUBIN" else text.raw.rstrip(b"\0")

    def _call(self, function: str, *arguments: object) -> None:
        if failed := getattr(self._library, function)(*arguments):
            raise BuildError(f"{function} of {self.path} failed: {self._reason(failed)}")

    def _reason(self, code: int) -> str:
        reason: bytes = self._library.nvrtcGetErrorString(code)
        return reason.decode()
