"""Parts of a tensor. A mapping for torch takes what torch takes; pread and numpy have safetensors' stricter indices."""

import re

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

import lora_mmap
from lora_mmap import _C

TORCH = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
ARRAY = TORCH.numpy()

# (package, backend, what auto is made to take)
AS_TORCH = [(safetensors, "mmap", None), (lora_mmap, "mmap", None)]
AS_TORCH += [(lora_mmap, "auto", "mmap"), (lora_mmap, "auto", "pread")]
STRICT = [(safetensors, "pt", "pread"), (safetensors, "np", "mmap"), (safetensors, "np", "pread")]
STRICT += [(lora_mmap, "pt", "pread"), (lora_mmap, "np", "mmap"), (lora_mmap, "np", "pread"), (lora_mmap, "np", "auto")]


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    path = tmp_path_factory.mktemp("slices") / "cube.safetensors"
    save_file({"cube": TORCH, "scalar": torch.tensor(2.5), "row": torch.arange(7)}, path)
    return path


@pytest.fixture(params=AS_TORCH, ids=lambda param: "-".join(filter(None, (param[0].__name__, *param[1:]))))
def as_torch(request, cube, monkeypatch):
    module, backend, taken = request.param
    monkeypatch.setenv("LORA_MMAP_BACKEND", taken or "auto")
    return module.safe_open(cube, "pt", backend=backend)


@pytest.fixture(params=STRICT, ids=lambda param: f"{param[0].__name__}-{param[1]}-{param[2]}")
def strict(request, cube):
    module, framework, backend = request.param
    return module.safe_open(cube, framework, backend=backend)


class Index:
    """``index[1:, ...]`` is what ``tensor[1:, ...]`` is given."""

    def __getitem__(self, item):
        return item


index = Index()

# What every way of slicing takes.
GOOD = [index[...], index[:], index[()], index[0], index[2], index[-1], index[-3], index[1:], index[:2], index[0:3]]
GOOD += [index[1:2], index[0:0], index[2:2], index[::2], index[::5], index[1:3:2], index[1, 2], index[1, 2, 3]]
GOOD += [
    index[-1, -2, -3],
    index[:, 1],
    index[:, 1:3],
    index[:, :, 4],
    index[..., 0],
    index[..., 1:3],
    index[0, ..., 1],
]
GOOD += [
    index[0, 1, 2, ...],
    index[..., 0, 1, 2],
    index[1:, ::3, 2:5:2],
    index[2, 1:1],
    index[np.int64(1)],
    index[True],
]


@pytest.mark.parametrize("item", GOOD, ids=repr)
def test_strict_indices(strict, item):
    part = strict.get_slice("cube")[item]
    # An array takes True for a new dimension; safetensors takes it for 1.
    expected = ARRAY[1 if item is True else item]
    assert part.shape == expected.shape
    assert np.array_equal(np.asarray(part), expected)


def test_an_empty_list_is_an_empty_range(strict):
    assert strict.get_slice("cube")[[]].shape == (0, 4, 5)


def test_what_a_strict_slice_gives_is_contiguous_and_the_callers(strict):
    view = strict.get_slice("cube")
    for item in (index[:], index[:, 1], index[::2, :, 1:3], index[1]):
        part = view[item]
        compact = part.is_contiguous() if isinstance(part, torch.Tensor) else part.flags.c_contiguous
        assert compact
        part[...] = -1
        assert (np.asarray(view[item]) == ARRAY[item]).all()


BAD = [
    (
        index[3],
        "Error during slicing [3] with shape [3, 4, 5]: index 3 out of bounds for tensor dimension #0 of size 3",
    ),
    (index[-4], "Invalid index -4 for dimension 0 of size 3"),
    (index[..., -6], "Invalid index -6 for dimension 2 of size 5"),
    (
        index[4:],
        "Error during slicing [4:] with shape [3, 4, 5]: index 4 out of bounds for tensor dimension #0 of size 3",
    ),
    (
        index[3:],
        "Error during slicing [3:] with shape [3, 4, 5]: index 3 out of bounds for tensor dimension #0 of size 3",
    ),
    (
        index[:4],
        "Error during slicing [:4] with shape [3, 4, 5]: index 3 out of bounds for tensor dimension #0 of size 3",
    ),
    (index[0, 1:9:2], "Error during slicing [0, 1:9:2] with shape [3, 4, 5]: index 8 out of bounds for"),
    (index[-1, 9:], "Error during slicing [2, 9:] with shape [3, 4, 5]: index 9 out of bounds for tensor dimension #1"),
    (index[9, 9], "Error during slicing [9, 9] with shape [3, 4, 5]: index 9 out of bounds for tensor dimension #1 of"),
    (
        index[..., 9],
        "Error during slicing [:, :, 9] with shape [3, 4, 5]: index 9 out of bounds for tensor dimension #2",
    ),
    (index[0, 0, 0, 0], "[0, 0, 0, 0] with shape [3, 4, 5]: more slicing indexes than dimensions in tensor"),
    (index[9, -9], "Invalid index -9 for dimension 1 of size 4"),
    (index[0, 0, 0, -1], "Invalid index -1 for dimension 3 of size 0"),
    (index[::0], "Slice step must be a positive integer, got 0"),
    (index[::-1], "Slice step must be a positive integer, got -1"),
    (index[..., ...], "Only one ellipsis (...) is allowed in slice index"),
    (index[None], "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
    (index[0, "a"], "Unsupported slice index at position 1: expected slice, int, or ellipsis"),
    (index[..., 1.0], "Unsupported slice index at position 2: expected slice, int, or ellipsis"),
    (index[2**31], "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
    (index[[0]], "Non empty lists are not implemented"),
    (index[[0], 1], "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
    (index[np.array([0, 1])], "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
    (index[torch.tensor([0, 1])], "Unsupported slice index at position 0: expected slice, int, or ellipsis"),
]


@pytest.mark.parametrize(("item", "text"), BAD, ids=[text for _, text in BAD])
def test_what_strict_indices_are_not(strict, item, text):
    with pytest.raises(safetensors.SafetensorError, match=re.escape(text)):
        strict.get_slice("cube")[item]


@pytest.mark.parametrize("item", [index[1.0:], index["a":], index[0, :2.0]])
def test_bounds_are_integers(strict, item):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        strict.get_slice("cube")[item]


def test_slices_of_a_scalar(strict, as_torch):
    for file in (strict, as_torch):
        for item in (index[...], index[()]):
            assert float(file.get_slice("scalar")[item]) == 2.5
    for item in (index[0], index[:]):
        with pytest.raises(safetensors.SafetensorError, match="more slicing indexes than dimensions"):
            strict.get_slice("scalar")[item]
        with pytest.raises(IndexError):
            as_torch.get_slice("scalar")[item]


OF_TORCH = [*GOOD, index[None], index[:, None], index[3:], index[7:9], index[-2:], index[2:1], index[:-1], index[-9:99]]
OF_TORCH += [
    index[[0, 2]],
    index[:, [1, 1, 0]],
    index[..., [4, 0]],
    index[0, [1, 3]],
    index[[True] * 3],
    index[range(2)],
]
OF_TORCH += [
    index[torch.tensor([2, 0])],
    index[1:, torch.tensor([0, 3])],
    index[TORCH > 30],
    index[False],
    index[:, True],
]
OF_TORCH += [index[np.array([0, 1])], index[torch.tensor(1)], index[0:2, 1, [0, 1]], index[..., ...]]


@pytest.mark.parametrize("item", OF_TORCH, ids=lambda item: re.sub(r"\s+", " ", repr(item))[:60])
def test_indices_of_torch(as_torch, item):
    part = as_torch.get_slice("cube")[item]
    assert torch.equal(part, TORCH[item])


NOT_OF_TORCH = [index[3], index[-4], index[0, 0, 0, 0], index[::-1], index[::0], index["a"], index[1.0], index[[0, 5]]]
NOT_OF_TORCH += [index[1.0:], index[2**70], index[:, torch.tensor([9])], index[torch.tensor([True])]]


@pytest.mark.parametrize("item", NOT_OF_TORCH, ids=repr)
def test_errors_of_torch(as_torch, item):
    with pytest.raises((IndexError, TypeError, ValueError)) as expected:
        TORCH[item]
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))):
        as_torch.get_slice("cube")[item]


def test_parts_of_a_mapping_are_views_of_the_whole(cube):
    for module in (safetensors, lora_mmap):
        view = module.safe_open(cube, "pt", backend="mmap").get_slice("cube")
        part = view[1:, ::2]
        assert part.untyped_storage().nbytes() == TORCH.nbytes
        assert (part.stride(), part.storage_offset()) == (TORCH[1:, ::2].stride(), 20)
        part.fill_(-1)
        assert not torch.equal(view[1:, ::2], TORCH[1:, ::2])
        assert torch.equal(view[0], TORCH[0])


@pytest.mark.parametrize(("framework", "backend"), [("pt", "pread"), ("np", "pread"), ("np", "mmap")])
@pytest.mark.parametrize(
    ("item", "n_elements"),
    [(index[1], 20), (index[1:3], 40), (index[0, 2], 5), (index[2, 1:3, 0], 10), (index[0:0], 0), (index[1, 2, 3], 1)],
)
def test_only_what_is_needed_is_read(cube, framework, backend, item, n_elements):
    view = lora_mmap.safe_open(cube, framework, backend=backend).get_slice("cube")
    before = _C.counters()["bytes_read"]
    view[item]
    assert _C.counters()["bytes_read"] - before == 4 * n_elements


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_a_view_reads_its_part_again_each_time(package, cube, framework):
    view = package.open(cube, framework).get_slice("row")
    assert [int(view[i]) for i in (3, 0, -1, 3)] == [3, 0, 6, 3]
    assert view.get_shape() == [7]
