"""One handle for many threads and for forked processes; nothing is left when it is closed."""

import gc
import os
import sys
import threading
from functools import partial

import pytest
import torch
from in_threads import in_threads
from other_process import run_python
from safetensors.torch import save_file

import lora_mmap
from lora_mmap.sharing import ForkSafeLock, lazy

BACKENDS = ["mmap", "pread"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({f"t{i}": torch.full((50, 40), float(i)) for i in range(60)}, path)
    return path


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_share_a_handle(path, backend, framework):
    for _ in range(5):
        with lora_mmap.safe_open(path, framework, backend=backend) as file:

            def use(number, file=file):
                for name in file.keys()[number % 7 :: 3]:
                    assert (file.get_tensor(name) == float(name[1:])).all()
                    assert (file.get_slice(name)[3:9] == float(name[1:])).all()
                assert len(file.get_tensors()) == 60

            in_threads(*(partial(use, number) for number in range(8)))


def test_threads_get_views_of_one_mapping(path):
    for _ in range(20):
        file = lora_mmap.safe_open(path, "pt", backend="mmap")
        addresses = set()

        def use(file=file, addresses=addresses):
            addresses.add(file.get_tensor("t0").data_ptr())

        in_threads(*[use] * 8)
        mappings = file._reader.opened.mapping
        assert all(mappings.address <= address < mappings.address + mappings.nbytes for address in addresses)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closing_while_others_read(path, backend):
    for _ in range(20):
        file = lora_mmap.safe_open(path, "pt", backend=backend)
        begun = threading.Event()

        def use(number, file=file, begun=begun):
            if number == 0:
                begun.wait(30)
                file.__exit__(None, None, None)
                return
            for i in range(60):
                try:
                    tensor = file.get_tensor(f"t{i}")
                except lora_mmap.errors.ClosedError:
                    return
                assert (tensor == float(i)).all()
                begun.set()

        in_threads(*(partial(use, number) for number in range(4)))


def open_descriptors(path):
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.path.exists(link) and os.readlink(link) == str(path) for link in links)


def mappings(path):
    with open("/proc/self/maps") as lines:
        return sum(line.rstrip().endswith(str(path)) for line in lines)


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_close_releases_everything_but_what_tensors_need(path, backend, framework):
    with lora_mmap.safe_open(path, framework, backend=backend) as file:
        part = file.get_slice("t1")
        tensor = file.get_tensor("t2")
        everything = file.get_tensors()
        assert open_descriptors(path) == 1
    assert open_descriptors(path) == 1  # the slice can still read
    assert (part[0] == 1).all()
    del part
    assert open_descriptors(path) == 0
    assert (mappings(path) > 0) == (backend == "mmap")
    assert (tensor == 2).all()
    del tensor, everything
    assert mappings(path) == 0


def test_an_adapter_releases_its_file(path, tmp_path):
    adapter_path = tmp_path / "a.safetensors"
    save_file({"m.lora_down.weight": torch.zeros(4, 8), "m.lora_up.weight": torch.zeros(8, 4)}, adapter_path)
    adapter = lora_mmap.open_adapter(adapter_path)
    assert open_descriptors(adapter_path) == 1
    adapter.tensor("m.lora_up.weight")
    adapter.close()
    assert open_descriptors(adapter_path) == mappings(adapter_path) == 0


def test_a_failed_open_leaves_nothing(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\\x05\\0\\0\\0\\0\\0\\0\\0hello")
    for _ in range(3):
        with pytest.raises(lora_mmap.errors.HeaderError):
            lora_mmap.safe_open(path, "pt")
    gc.collect()
    assert open_descriptors(path) == mappings(path) == 0


# Forks while other threads of the parent are inside every call that takes a lock or holds the descriptor.
FORK = """
import os, signal, sys, threading
import lora_mmap
path, adapter_path, backend = sys.argv[1:]
file = lora_mmap.safe_open(path, "pt", backend=backend)
adapter = lora_mmap.open_adapter(adapter_path)
stop = threading.Event()

def use():
    assert file.get_tensor("t7")[0, 0] == 7
    assert lora_mmap.safe_open(path, "pt", backend=backend).get_tensor("t1")[0, 0] == 1
    with lora_mmap.open_adapter(adapter_path) as own:
        own.alphas(), own.describe()
    return adapter.tensor("m.lora_up.weight").shape == (8, 4) and bool((file.get_slice("t3")[2:5] == 3).all())

def hammer():
    while not stop.is_set():
        use()

use()  # what torch sets up at a first call, and a fork in the middle of that, are torch's affair
threads = [threading.Thread(target=hammer) for _ in range(3)]
for thread in threads:
    thread.start()
failed = 0
for i in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a deadlock ends the child
        good = all(file.get_tensor(f"t{i}")[0, 0] == i for i in range(0, 60, 7))
        good &= use() and len(file.get_tensors()) == 60 and adapter.alphas() == {0: 4.0}
        with lora_mmap.open_adapter(adapter_path) as own:
            good &= own.describe()["keys"].keys() == adapter.describe()["keys"].keys()
        file.__exit__(None, None, None)
        adapter.close()
        os._exit(0 if good else 1)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join()
print(failed)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_forked_processes_share_a_handle(path, tmp_path, backend):
    adapter_path = tmp_path / "a.safetensors"
    tensors = {
        "m.alpha": torch.tensor(4.0),
        "m.lora_down.weight": torch.zeros(4, 8),
        "m.lora_up.weight": torch.ones(8, 4),
    }
    save_file(tensors, adapter_path)
    variables = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = run_python(FORK, path, adapter_path, backend, timeout=300, **variables)
    assert done.returncode == 0, done
    assert done.stdout.strip() == "0", done


def test_a_lock_that_was_held_at_the_fork_is_free_in_the_child():
    lock = ForkSafeLock()
    with lock.native:
        child = os.fork()
        if child == 0:
            with lock.native:
                os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_taking_a_lock_runs_no_python_code(make):
    """An interrupt arrives between instructions of Python: one there would leave the lock taken for ever."""
    lock, called = ForkSafeLock(make), []
    sys.setprofile(lambda frame, event, _: called.append((event, frame.f_code.co_name)))
    try:
        with lock.native:
            pass
    finally:
        sys.setprofile(None)
    assert [name for event, name in called if event == "call"] == []


def test_lazy_values_are_computed_once_and_documented():
    class Thing:
        calls = 0

        @lazy
        def value(self):
            """What it is."""
            self.calls += 1
            return object()

    thing = Thing()
    assert thing.value is thing.value
    assert thing.calls == 1
    assert Thing.value.__doc__ == "What it is."
