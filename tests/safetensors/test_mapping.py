"""The copy-on-write map behind zero-copy views."""

import gc

import pytest

from lora_mmap import _C


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"0123456789" * 1000)
    return path


def is_mapped(path):
    with open("/proc/self/maps") as maps:
        return str(path) in maps.read()


def test_a_map_shows_the_file_and_outlives_it(path):
    content = path.read_bytes()
    with _C.File(path) as file:
        mapping = file.map()
        assert file.bytes_read == 0
    path.unlink()
    assert mapping.nbytes == len(content)
    assert mapping.address % 4096 == 0
    assert bytes(memoryview(mapping)) == content


def test_views_keep_the_map_alive_and_writing_stays_in_it(path):
    file = _C.File(path)
    view, other = memoryview(file.map()), memoryview(file.map())
    gc.collect()
    assert view.format == "B"
    assert view[3:5] == b"34"
    view[3:5] = b"ab"
    assert other[3:5] == b"34"
    assert file.read(3, 2) == b"34"
    other.release()
    assert is_mapped(path)
    view.release()
    gc.collect()
    assert not is_mapped(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    mapping = _C.File(path).map()
    assert mapping.nbytes == 0
    assert bytes(memoryview(mapping)) == b""


def test_unmapped_with_the_object(path):
    mapping = _C.File(path).map()
    assert is_mapped(path)
    del mapping
    assert not is_mapped(path)
