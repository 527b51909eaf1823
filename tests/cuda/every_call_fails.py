"""Every driver call of a device's life made to fail once, each time on a device that nobody has used yet.

Run as a program by test_every_call_fails.py, with the fake driver's library and a number of threads.
"""

import gc
import json
import sys
from itertools import count

import bare_package  # noqa: F401
import numpy as np
from fake_driver import FakeCuda, bytes_at

from lora_mmap import _C
from lora_mmap.errors import CudaError

# Their failure is nobody's to hear: they run in destructors, or somebody asks again.
QUIET = {
    "cuCtxPushCurrent",
    "cuEventDestroy",
    "cuMemFreeHost",
    "cuCtxPopCurrent",
    "cuThreadExchangeStreamCaptureMode",
    "cuEventQuery",
}
CONTEXT = {"cuCtxPushCurrent", "cuThreadExchangeStreamCaptureMode"}
N_DEVICES = 256
SOURCE = np.arange(10 * 256, dtype=np.uint16)


class Life:
    """All that is done with a device: ten transfers go through eight slots, so slots are waited for."""

    def __init__(self, fake, device, threads):
        self.fake, self.device, self.threads = fake, device, threads
        self.stream = fake.stream(device)
        self.kernels = _C.cuda_device(0)["image"] is not None

    def run(self):
        nbytes = SOURCE.nbytes // 10
        to = self.fake.alloc(10 * 1024, self.stream, self.device)
        try:
            after = _C.cuda_event(self.device, self.stream)
            _C.cuda_prepare(self.device, self.stream, self.kernels)
            requests = [(None, None, 0, SOURCE.ctypes.data + i * nbytes, nbytes, to + i * 1024) for i in range(10)]
            _C.cuda_upload(self.device, self.stream, requests, after, self.threads)
            read_back = _C.CudaReadBack(self.device, self.stream, to + 9 * 1024, nbytes)
            read_back.ready()
            last = read_back.wait()
            assert last == SOURCE.tobytes()[9 * nbytes :]
            got = b"".join(bytes_at(to + i * 1024, nbytes) for i in range(10))
            assert got == SOURCE.tobytes()
            del read_back
            assert _C.cuda_clear(self.device) > 0
        finally:
            self.fake.free(to)  # whatever happened: no copy may be in flight into it

    def outcome(self):
        try:
            self.run()
        except CudaError as error:
            return str(error)
        return None


def check_nothing_is_left(fake):
    gc.collect()
    counts = fake.counts
    assert fake.violations == [], fake.violations
    assert counts["contexts_pushed"] == 0, counts
    assert fake.context_depth() == 0


def main(library, threads):
    fake = FakeCuda(library)
    assert _C.cuda_driver()["why"] is None  # what it finds out is for good: test_driver.py
    fake.lib.fake_set_devices(N_DEVICES)
    for device in range(N_DEVICES):
        fake.lib.fake_activate(device, 1)
    failed = {}
    lost = 0
    for nth in count(1):
        assert nth < N_DEVICES
        fake.mode("lazy")
        life = Life(fake, nth, threads)
        fake.fail(nth)
        message = life.outcome()
        function = fake.failed
        fake.fail(0)
        if not function:
            assert message is None
            break
        failed[function] = failed.get(function, 0) + 1
        if message is None:
            assert function in QUIET, function
        else:
            assert f" {function} failed on cuda:{nth}: CUDA_ERROR_ILLEGAL_ADDRESS" in message, (function, message)
            assert message.startswith("[")
        check_nothing_is_left(fake)
        again = life.outcome()
        assert again is None, (function, again)  # as if nothing had happened
        fake.close()
        _C.cuda_clear(nth)
        check_nothing_is_left(fake)
        left = fake.counts
        # An event whose context cannot be entered cannot be destroyed.
        lost += function in CONTEXT and message is None and left["events"] > lost
        assert (left["pinned"], left["events"], left["pending"]) == (0, lost, 0), (function, nth, left)
        assert left["streams"] <= nth
        assert left["modules"] <= nth
        assert _C.cuda_pinned_nbytes() == 0
    fake.close()
    print(json.dumps(failed))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
