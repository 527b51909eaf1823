"""The library's kernels on this CPU (tests/fake_cuda/simt): built once, run over host memory through ctypes."""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from lora_mmap import _C

ROOT = Path(__file__).parents[3]
SIMT = ROOT / "tests" / "fake_cuda" / "simt"
CSRC = ROOT / "csrc"
FLAGS = ["-std=c++20", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
ORDERS = ["ascending", "descending", "random"]


def _sources():
    used = [CSRC / "base" / name for name in ("half.h", "float_env.h", "float_env.cpp")]
    return sorted([*SIMT.iterdir(), *(CSRC / "cuda" / "kernels").iterdir(), *used])


def build(arch):
    """The shared library that imitates `arch`, built where these sources have not been before."""
    digest = hashlib.sha256(repr((arch, FLAGS, WARNINGS)).encode())
    for path in _sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    folder = Path(tempfile.gettempdir()) / f"lora_mmap-simt-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{digest.hexdigest()[:16]}.so"
    with open(folder / f"{library.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run wait for the first
        if not library.exists():
            _compile(arch, library)
    return library


def _compile(arch, library):
    fma = ["-mfma"] if platform.machine() == "x86_64" else []
    defined = ['-DLORA_MMAP_SIMT="device.h"', f"-DLORA_MMAP_ARCH={arch}", f"-I{CSRC}", f"-I{SIMT}"]
    sources = [*sorted(SIMT.glob("*.cpp")), CSRC / "base" / "float_env.cpp"]
    made = library.with_suffix(".part")
    compiler = shutil.which("c++") or "g++"  # whatever others left in CXX
    ran = subprocess.run(
        [compiler, *FLAGS, *fma, *WARNINGS, *defined, *sources, "-o", made], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    made.rename(library)


class FuseParams(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_uint64) for name in ("jobs", "terms", "flags")],
        *[(name, ctypes.c_uint32) for name in ("n_tiles", "n_jobs")],
    ]


class GainsParams(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_uint64) for name in ("jobs", "terms", "sums", "flags")],
        *[(name, ctypes.c_uint32) for name in ("n_tiles", "n_jobs")],
    ]


class CopyParams(ctypes.Structure):
    _fields_ = [("rects", ctypes.c_uint64), ("n_tiles", ctypes.c_uint32), ("n_rects", ctypes.c_uint32)]


class StepParams(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_uint64) for name in ("steps", "terms", "flags")],
        *[(name, ctypes.c_uint32) for name in ("n_tiles", "n_steps", "force")],
    ]


class KernelFault(Exception):
    """What a device would have hung on, or not noticed."""


class Emulator:
    def __init__(self, arch):
        self.arch = arch
        self.lib = ctypes.CDLL(str(build(arch)))
        self.lib.simt_error.restype = ctypes.c_char_p
        assert self.lib.simt_arch() == arch

    def launch(self, kernel, grid, threads, shared_nbytes, params):
        args = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        if self.lib.simt_launch(kernel.encode(), grid, threads, shared_nbytes, args):
            raise KernelFault(self.lib.simt_error().decode())

    @contextlib.contextmanager
    def order(self, name, seed=0):
        self.lib.simt_order(ORDERS.index(name), seed)
        try:
            yield
        finally:
            self.lib.simt_order(0, 0)

    def fuse(self, jobs, grid=3, fast=False):
        """As `_C.fuse`: the indices of the jobs that overflowed."""
        table, launches = _C.cuda_fuse_table(jobs, fast, self.arch)
        held = aligned_copy(table)
        flags = np.zeros(len(jobs) + 1, np.uint32)
        for kernel, threads, shared_nbytes, tiles, rows, rows_offset, terms_offset in launches:
            at = held.ctypes.data
            params = FuseParams(at + rows_offset, at + terms_offset, flags.ctypes.data, tiles, rows)
            self.launch(kernel, min(grid, tiles), threads, shared_nbytes, params)
        assert flags[-1] == 0
        assert set(flags.tolist()) <= {0, 1}
        return np.flatnonzero(flags).tolist()

    def gains(self, jobs, grid=3):
        """As `_C.gains`: the indices of the jobs with a norm or a result that is not finite."""
        table, launches, sums_nbytes = _C.cuda_gains_table(jobs)
        held, flags = aligned_copy(table), np.zeros(len(jobs) + 1, np.uint32)
        sums = np.full(sums_nbytes // 8 + 1, np.nan)
        for kernel, threads, shared_nbytes, tiles, rows, rows_offset, terms_offset in launches:
            at = held.ctypes.data
            addresses = (at + rows_offset, at + terms_offset, sums.ctypes.data, flags.ctypes.data)
            self.launch(kernel, min(grid, tiles), threads, shared_nbytes, GainsParams(*addresses, tiles, rows))
        assert flags[-1] == 0
        assert np.isnan(sums[-1])
        return np.flatnonzero(flags).tolist()

    def step(self, steps, grid=3, force=False):
        """The flags of the steps, as `_C.CudaLaunches.step` takes them."""
        table, launches = _C.cuda_step_table(steps)
        held, flags = aligned_copy(table), np.zeros(len(steps) + 1, np.uint32)
        for kernel, threads, shared_nbytes, tiles, rows, rows_offset, terms_offset in launches:
            at = held.ctypes.data
            params = StepParams(at + rows_offset, at + terms_offset, flags.ctypes.data, tiles, rows, force)
            self.launch(kernel, min(grid, tiles), threads, shared_nbytes, params)
        assert flags[-1] == 0
        return flags[:-1].tolist()

    def copy(self, rects, grid=3):
        table, launches = _C.cuda_copy_table(rects)
        held = aligned_copy(table)
        for kernel, threads, shared_nbytes, tiles, rows, rows_offset, _ in launches:
            params = CopyParams(held.ctypes.data + rows_offset, tiles, rows)
            self.launch(kernel, min(grid, tiles), threads, shared_nbytes, params)


def aligned_copy(data):
    """The bytes at a multiple of 16, as a device's allocator would place them."""
    raw = np.zeros(len(data) + 16, np.uint8)
    first = -raw.ctypes.data % 16
    raw[first : first + len(data)] = np.frombuffer(data, np.uint8)
    return raw[first : first + len(data)]


@functools.cache
def emulator(arch):
    return Emulator(arch)
