"""`backend="auto"`: what it takes, what overrides it, and that slices behave the same whatever it took."""

import itertools

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import lora_mmap
from lora_mmap.loading import opened_file


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(120.0).reshape(4, 5, 6), "s": torch.tensor(1.0), "e": torch.zeros(0, 3)}, path)
    return path


def chosen(path, **options):
    return lora_mmap.safe_open(path, "pt", **options)._reader.opened.backend


def test_an_argument_wins_over_the_environment(path, monkeypatch):
    assert chosen(path) == "mmap"
    monkeypatch.setenv("LORA_MMAP_BACKEND", "pread")
    assert chosen(path) == "pread"
    assert chosen(path, backend="mmap") == "mmap"
    monkeypatch.setenv("LORA_MMAP_BACKEND", "auto")
    assert chosen(path) == "mmap"
    monkeypatch.setenv("LORA_MMAP_BACKEND", "disk")
    with pytest.raises(SafetensorError, match='backend "disk" is invalid'):
        chosen(path)


def test_a_remote_file_beyond_the_memory_at_hand_is_mapped(path, monkeypatch):
    real = opened_file.open_file

    class Remote:
        is_remote = True

        def __init__(self, path):
            self._file = real(path)

        def __getattr__(self, name):
            return getattr(self._file, name)

    monkeypatch.setattr(opened_file, "open_file", Remote)
    assert chosen(path) == "pread"
    monkeypatch.setattr(opened_file, "_available_nbytes", lambda: path.stat().st_size - 1)
    assert chosen(path) == "mmap"


INDICES = [0, -1, 3, slice(1, 3), slice(None, None, 2), slice(-2, None), slice(3, 1), slice(7, 9), slice(None), ...]
INDICES += [None, True, [0, 2], torch.tensor([1, 1]), torch.tensor(2), (), (0, 1), (slice(1, 3), 2), (..., 0), (0, ...)]
INDICES += [
    (slice(1, 4, 2), slice(None), 3),
    (1, [0, 2]),
    (slice(0, 2), None),
    (2, 3, 4),
    (slice(None), torch.tensor([0])),
]
WRONG = [4, -5, (0, 5), (0, 0, 0, 0), "x", 1.5, slice(None, None, -1), slice(None, None, 0), (0, "x")]


def outcome(path, name, index, **options):
    try:
        return lora_mmap.safe_open(path, "pt", **options).get_slice(name)[index]
    except Exception as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    ("name", "index"),
    [*itertools.product("a", INDICES + WRONG), *itertools.product("se", [..., (), None, 0, slice(None)])],
)
def test_slices_do_not_depend_on_what_auto_took(path, monkeypatch, name, index):
    mapped = outcome(path, name, index)
    monkeypatch.setenv("LORA_MMAP_BACKEND", "pread")
    read = outcome(path, name, index)
    if isinstance(mapped, torch.Tensor):
        assert isinstance(read, torch.Tensor), read
        assert torch.equal(mapped, read)
        assert mapped.dtype == read.dtype
    else:
        assert read == mapped


def test_a_slice_reads_only_its_rows(path, monkeypatch):
    monkeypatch.setenv("LORA_MMAP_BACKEND", "pread")
    file = lora_mmap.safe_open(path, "pt")
    native = file._reader.opened.file
    row = 5 * 6 * 4
    for index, nbytes in [(1, row), (slice(1, 3), 2 * row), ((2, 3), row), (slice(2, 2), 0), ((..., 0), 4 * row)]:
        before = native.bytes_read
        file.get_slice("a")[index]
        assert native.bytes_read - before == nbytes, index
    strict = lora_mmap.safe_open(path, "pt", backend="pread")
    native = strict._reader.opened.file
    for index, nbytes in [((2, 3), 6 * 4), ((1, slice(1, 3)), 2 * 6 * 4), ((0, 0, 5), 4)]:
        before = native.bytes_read
        strict.get_slice("a")[index]
        assert native.bytes_read - before == nbytes, index
