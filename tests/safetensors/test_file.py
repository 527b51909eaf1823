"""Opening, identity, reading, closing."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
from header_bytes import file_of
from other_process import run_as_nobody, run_python

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, ClosedError, HeaderError, ReadError


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(256)) * 16)
    return path


def test_identity_is_that_of_stat(path):
    status = path.stat()
    with _C.File(path) as file:
        assert file.identity() == (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        assert (file.device, file.inode, file.size, file.mtime_ns) == file.identity()
        assert file.path == str(path)
        file.check_unchanged()


def test_read_and_count(path):
    before = _C.counters()
    file = _C.File(str(path))
    assert file.read(3, 5) == b"\3\4\5\6\7"
    assert file.read(4096, 0) == b""
    memory = _C.Memory(10)
    file.read_into(memory.address, 10, 250)
    assert bytes(memory) == bytes(range(250, 256)) + bytes(range(4))
    assert file.bytes_read == 15
    after = _C.counters()
    assert after["files_opened"] - before["files_opened"] == 1
    assert after["bytes_read"] - before["bytes_read"] == 15
    assert after["keys_classified"] == before["keys_classified"]


@pytest.mark.parametrize(("offset", "nbytes"), [(0, 4097), (4097, 0), (4096, 1), (2**63, 1), (1, 2**64 - 1)])
def test_ranges_outside_the_file(path, offset, nbytes):
    with _C.File(path) as file, pytest.raises(ArgumentError, match="the file has 4096"):
        file.read(offset, nbytes)


def test_no_address(path):
    with _C.File(path) as file, pytest.raises(ArgumentError, match="no address"):
        file.read_into(0, 1, 0)


def test_reading_a_header_reads_just_that(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of({"a": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}}, bytes(1000)))
    before = _C.counters()["headers_parsed"]
    with _C.File(path) as file:
        header = file.read_header()
        assert file.bytes_read == header.header_nbytes == path.stat().st_size - 1000
    assert _C.counters()["headers_parsed"] == before + 1
    assert header.names() == ["a"]  # outlives its file


def test_header_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"1234")
    with _C.File(path) as file, pytest.raises(HeaderError, match=r"header too small.*broken\.safetensors"):
        file.read_header()


def test_missing(tmp_path):
    path = tmp_path / "nothing.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        _C.File(path)
    assert f"No such file or directory: {path}" in str(caught.value)
    assert caught.value.filename == str(path)


def test_directory(tmp_path):
    with pytest.raises(IsADirectoryError):
        _C.File(tmp_path)


def test_devices_are_refused():
    with pytest.raises(OSError, match="Not a regular file") as caught:
        _C.File("/dev/null")
    assert caught.value.errno == errno.EINVAL


def test_fifo_does_not_hang(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = """
import sys
from lora_mmap import _C
try:
    _C.File(sys.argv[1])
except OSError as error:
    print(error)
"""
    done = run_python(script, fifo)
    assert "Not a regular file" in done.stdout, done


def test_no_permission(path):
    path.chmod(0)
    script = """
try:
    _C.File("x.bin")
except PermissionError as error:
    print(error)
"""
    done = run_as_nobody(path.parent, "from lora_mmap import _C", script)
    assert "Permission denied: x.bin" in done.stdout, done


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.bin"
    with open(name, "wb") as file:
        file.write(b"hello")
    with _C.File(os.fsdecode(name)) as file:
        assert file.read(0, 5) == b"hello"
        assert file.path == os.fsdecode(name)


def test_names_with_nul():
    with pytest.raises(ValueError, match="null"):
        _C.File("a\0b")


def test_closing(path):
    before = open_descriptors()
    with _C.File(path) as file:
        assert not file.closed
        assert open_descriptors() == before + 1
    assert file.closed
    assert open_descriptors() == before
    file.close()
    for use in (lambda: file.read(0, 1), file.check_unchanged, file.read_header, file.map):
        with pytest.raises(ClosedError, match=r"File is closed: .*x\.bin"):
            use()
    assert file.size == 4096  # what was known at opening stays known


def test_failures_to_open_leave_no_descriptor(tmp_path):
    before = open_descriptors()
    for path in (tmp_path, "/dev/null", tmp_path / "missing"):
        with pytest.raises(OSError, match=r"."):
            _C.File(path)
    assert open_descriptors() == before


def test_truncated_after_open(path):
    with _C.File(path) as file:
        os.truncate(path, 100)
        assert file.read(0, 100) == bytes(range(100))
        with pytest.raises(ReadError) as caught:
            file.read(90, 30)
        expected = "expected 30 bytes at offset 90, got 10: the file was truncated after it was opened"
        assert f"{path}: {expected}" in str(caught.value)
        with pytest.raises(ReadError, match=r"size expected 4096 bytes, got 100"):
            file.check_unchanged()


def test_truncated_before_the_header_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of("{}"))
    with _C.File(path) as file:
        os.truncate(path, 9)
        with pytest.raises(ReadError, match="got 1: the file was truncated after it was opened, inside the header"):
            file.read_header()


def test_written_to_after_open(path):
    with _C.File(path) as file:
        os.utime(path, ns=(0, file.mtime_ns + 1))
        with pytest.raises(ReadError, match=r"x\.bin.*modification time expected"):
            file.check_unchanged()


def test_replaced_or_unlinked_while_open(path, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with _C.File(path) as file:
        identity = file.identity()
        os.replace(other, path)
        file.check_unchanged()
        assert file.read(0, 3) == b"\0\1\2"
        with _C.File(path) as new:
            assert new.identity() != identity
            path.unlink()
            assert new.read(0, 5) == b"other"


def test_fork_after_open(path):
    script = """
import os, sys
from lora_mmap import _C
file = _C.File(sys.argv[1])
child = os.fork()
good = all(file.read(i, 256)[0] == i % 256 for i in range(3000))
if child == 0:
    os._exit(0 if good else 1)
print(good, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(script, path).stdout == "True 0\n"


def test_threads_reading_while_closing(tmp_path):
    """A read either finishes on its own file or says closed; it never sees a file that took the number over."""
    paths = []
    for letter in (b"a", b"b"):
        paths.append(tmp_path / letter.decode())
        paths[-1].write_bytes(letter * 100_000)
    failures = []

    def read_until_closed(file):
        try:
            while True:
                if file.read(0, 100_000).strip(b"a"):
                    failures.append("read another file's bytes")
        except ClosedError:
            pass
        except BaseException as error:
            failures.append(error)

    for _ in range(40):
        file = _C.File(paths[0])
        threads = [threading.Thread(target=read_until_closed, args=(file,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        file.close()
        others = [_C.File(paths[1]) for _ in range(4)]
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for other in others:
            other.close()
    assert not failures


def test_descriptors_are_not_inherited(path):
    with _C.File(path):
        listing = "import os; print([os.path.realpath(entry) for entry in os.scandir('/proc/self/fd')])"
        shown = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True, text=True)
        assert str(path) not in shown.stdout


def test_signals_do_not_interrupt_a_read(path):
    calls = []
    old = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        with _C.File(path) as file:
            while len(calls) < 20:
                assert file.read(0, 4096) == path.read_bytes()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
