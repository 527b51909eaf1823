"""The fake CUDA driver of tests/fake_cuda: built once, steered through ctypes."""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "fake_cuda"
CSRC = Path(__file__).parents[2] / "csrc"
ILLEGAL_ADDRESS = 700


def _fingerprint():
    digest = hashlib.sha256()
    files = [p for p in SOURCES.rglob("*") if p.is_file()]
    headers = [p for p in CSRC.rglob("*") if p.suffix in {".h", ".cuh", ".cu"}]
    for path in sorted([*files, *headers]):
        digest.update(str(path.relative_to(SOURCES.parents[1])).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def build():
    """The folder with libcuda.so.1 and libold_cuda.so.1, built where these sources have not been before."""
    folder = Path(tempfile.gettempdir()) / f"lora_mmap-fake-cuda-{os.getuid()}" / _fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run wait for the first
        if not done.exists():
            generator = ["-G", "Ninja"] if shutil.which("ninja") else []
            configure = ["cmake", "-S", str(SOURCES), "-B", str(folder), *generator, "-DCMAKE_BUILD_TYPE=Release"]
            for command in (configure, ["cmake", "--build", str(folder), "--parallel", "2"]):
                ran = subprocess.run(command, capture_output=True, text=True)
                assert ran.returncode == 0, ran.stdout + ran.stderr
            done.touch()
    return folder


class FakeCuda:
    """Methods are the functions of tests/fake_cuda/fake.h. Streams and memory made here go with close()."""

    def __init__(self, library):
        self.lib = ctypes.CDLL(str(library))
        for name in ("fake_counts", "fake_violations", "fake_failed"):
            getattr(self.lib, name).restype = ctypes.c_char_p
        for name in ("fake_stream", "fake_alloc"):
            getattr(self.lib, name).restype = ctypes.c_void_p
        self._streams = []
        self._memory = {}

    def reset(self):
        self.lib.fake_reset()

    def mode(self, name, seed=0):
        assert self.lib.fake_mode(name.encode(), ctypes.c_uint64(seed)) == 0

    def fail(self, nth, function="", code=ILLEGAL_ADDRESS):
        self.lib.fake_fail(function.encode(), ctypes.c_uint64(nth), code)

    @property
    def failed(self):
        return self.lib.fake_failed().decode()

    @property
    def counts(self):
        return json.loads(self.lib.fake_counts())

    @property
    def calls(self):
        return self.counts["calls"]

    @property
    def violations(self):
        return json.loads(self.lib.fake_violations())

    def stream(self, device=0, non_blocking=True):
        stream = self.lib.fake_stream(device, int(non_blocking))
        self._streams.append((device, stream))
        return stream

    def synchronize(self, stream, device=0):
        return self.lib.fake_synchronize(device, ctypes.c_void_p(stream))

    def capture(self, stream, capturing, device=0, mode=0):
        self.lib.fake_capture(device, ctypes.c_void_p(stream), int(capturing), mode)

    def alloc(self, nbytes, stream, device=0):
        address = self.lib.fake_alloc(device, ctypes.c_void_p(stream), ctypes.c_size_t(nbytes))
        self._memory[address] = (device, stream)
        return address

    def free(self, address, stream=None):
        device, made_on = self._memory.pop(address)
        stream = made_on if stream is None else stream
        self.lib.fake_free_on_stream(device, ctypes.c_void_p(stream), ctypes.c_void_p(address))

    def fill(self, stream, address, value, nbytes, device=0):
        at = ctypes.c_void_p(address)
        self.lib.fake_fill(device, ctypes.c_void_p(stream), at, value, ctypes.c_size_t(nbytes))

    def copy(self, stream, to, source, nbytes, device=0):
        pointers = [ctypes.c_void_p(pointer) for pointer in (stream, to, source)]
        self.lib.fake_copy(device, *pointers, ctypes.c_size_t(nbytes))

    @contextlib.contextmanager
    def current(self, device):
        self.lib.fake_push_context(device)
        yield
        self.lib.fake_pop_context()

    def context(self):
        """The device whose context is current on this thread, -1 for none."""
        return self.lib.fake_context()

    def context_depth(self):
        return self.lib.fake_context_depth()

    def close(self):
        for address in list(self._memory):
            self.free(address)
        for device, stream in self._streams:
            self.synchronize(stream, device)
            self.lib.fake_stream_free(ctypes.c_void_p(stream))
        self._streams.clear()


def bytes_at(address, nbytes):
    return ctypes.string_at(address, nbytes)
