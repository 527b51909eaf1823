"""A forked child cannot use the parent's CUDA: it hears so, and asks nothing of the driver."""

from fresh_process import run

CODE = """
import ctypes, os
fake = ctypes.CDLL(os.environ["LORA_MMAP_LIBCUDA"])
fake.fake_counts.restype = ctypes.c_char_p
calls = lambda: __import__("json").loads(fake.fake_counts())["calls"]
USED
pid = os.fork()
if pid == 0:
    before = calls()
    outcomes = [
        error_of(_C.cuda_prepare, 0, 0, False),
        error_of(_C.cuda_upload, 0, 0, [], None, 1),
        error_of(_C.cuda_device, 0),
        _C.cuda_driver()["why"],
        _C.cuda_clear(0),
    ]
    held.clear()
    print(*outcomes, calls() == before, sep="\\n", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(error_of(_C.cuda_prepare, 0, 0, False))
"""

FORKED = (
    "this process was forked from one that had used CUDA, which does not survive a fork: start it with "
    "multiprocessing's 'spawn' or 'forkserver' method"
)


def test_the_parent_used_a_device(fake_cuda_folder):
    used = """
_C.cuda_prepare(0, 0, False)
fake.fake_alloc.restype = ctypes.c_void_p
memory = fake.fake_alloc(0, None, 64)
held = [_C.cuda_event(0, 0), _C.CudaReadBack(0, 0, memory, 64)]
"""
    lines = run(CODE.replace("USED", used), fake_cuda_folder / "libcuda.so.1")
    expected = [f"[{name}] {FORKED}" for name in ("cuda_prepare", "cuda_upload", "cuda_device")]
    assert lines == [*expected, FORKED, "0", "True", "None"]


def test_the_parent_used_cuda_through_torch_only(fake_cuda_folder):
    """The child loads the driver itself, which refuses: cuInit says that it is not initialised."""
    code = """
fake = ctypes.CDLL(os.environ["LORA_MMAP_LIBCUDA"])
if os.fork() == 0:
    print(error_of(_C.cuda_prepare, 0, 0, False), flush=True)
    os._exit(0)
os.wait()
print(error_of(_C.cuda_prepare, 0, 0, False))
"""
    lines = run(code, fake_cuda_folder / "libcuda.so.1")
    assert lines == [f"[cuda_prepare] {FORKED}", "None"]
