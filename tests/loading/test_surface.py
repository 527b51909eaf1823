"""What an open file can do, and what it says once it is closed."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import save_file

USES = {
    "keys": lambda file: file.keys(),
    "offset_keys": lambda file: file.offset_keys(),
    "metadata": lambda file: file.metadata(),
    "get_tensor": lambda file: file.get_tensor("matrix"),
    "get_tensors": lambda file: file.get_tensors(),
    "get_slice": lambda file: file.get_slice("matrix"),
}


def test_keys_are_sorted(package, path, tensors):
    assert package.open(path).keys() == sorted(tensors)


def test_offset_keys_are_in_the_order_of_the_data(package, path):
    # The widest type first and, of one type, by name; the file's own order of names is left aside.
    assert package.open(path).offset_keys() == ["empty", "matrix", "scalar", "half", "vector"]


def test_all_tensors_come_in_the_order_of_the_data(package, path):
    file = package.open(path)
    assert list(file.get_tensors()) == file.offset_keys()
    assert list(package.load_file(path)) == file.offset_keys()


@pytest.mark.parametrize("framework", ["pt", "torch", "pytorch"])
def test_tensors_are_what_was_saved(package, path, tensors, framework):
    with package.open(path, framework) as file:
        one_by_one = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for loaded in (one_by_one, file.get_tensors(), package.load_file(path), package.load(path.read_bytes())):
            assert loaded.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert type(loaded[name]) is torch.Tensor
                assert loaded[name].dtype == tensor.dtype
                assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("framework", ["np", "numpy"])
def test_arrays_are_what_was_saved(package, array_path, framework):
    expected = {name: tensor.numpy() for name, tensor in package.load_file(array_path).items()}
    with package.open(array_path, framework) as file:
        one_by_one = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        in_memory = package.module.numpy.load(array_path.read_bytes())
        for loaded in (one_by_one, file.get_tensors(), package.load_arrays(array_path), in_memory):
            assert loaded.keys() == expected.keys()
            for name, array in expected.items():
                assert loaded[name].dtype == array.dtype
                assert loaded[name].shape == array.shape
                assert loaded[name].tobytes() == array.tobytes()


def test_metadata(package, path):
    assert package.open(path).metadata() == {"format": "pt", "title": "é 😀"}


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_metadata(package, tmp_path, metadata):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata)
    assert package.open(path).metadata() == metadata


@pytest.mark.parametrize("use", ["keys", "offset_keys", "metadata", "get_tensors"])
def test_what_is_handed_out_is_the_callers(package, path, use):
    file = package.open(path)
    USES[use](file).clear()
    assert len(USES[use](file)) > 0


def test_kinds_of_results(package, path):
    file = package.open(path)
    view = file.get_slice("matrix")
    kinds = [file.keys(), file.offset_keys(), file.metadata(), file.get_tensors(), view.get_shape(), view.get_dtype()]
    assert [type(kind) for kind in kinds] == [list, list, dict, dict, list, str]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("matrix", [4, 6], "F32"), ("scalar", [], "F32"), ("empty", [0, 3], "F32"), ("half", [1, 2], "BF16")],
)
def test_a_slice_knows_its_tensor(package, path, name, shape, dtype):
    view = package.open(path).get_slice(name)
    assert (view.get_shape(), view.get_dtype()) == (shape, dtype)


@pytest.mark.parametrize("use", ["get_tensor", "get_slice"])
def test_a_name_that_is_not_there(package, path, use):
    with package.open(path) as file, pytest.raises(package.error, match="File does not contain tensor nothing"):
        getattr(file, use)("nothing")


def test_a_handle_is_no_container(package, path):
    file = package.open(path)
    for use in (len, iter, lambda file: "matrix" in file, lambda file: file["matrix"]):
        with pytest.raises(TypeError):
            use(file)


def test_a_handle_is_of_its_class_and_stays_where_it_is(package, path):
    file = package.open(path)
    assert isinstance(file, package.module.safe_open)
    for use in (pickle.dumps, copy.copy, copy.deepcopy, lambda file: pickle.dumps(file.get_slice("matrix"))):
        with pytest.raises(TypeError, match="cannot pickle"):
            use(file)
    with pytest.raises(AttributeError):
        file.title = 1


def test_a_context_manager(package, path):
    file = package.open(path)
    with file as entered:
        assert entered is file
    assert file.__exit__(None, None, None) is None  # once more does nothing
    with pytest.raises(KeyError, match="mine"), package.open(path):
        raise KeyError("mine")


@pytest.mark.parametrize("use", USES)
def test_a_closed_file(package, path, use):
    with package.open(path) as file:
        pass
    with pytest.raises(package.error, match=r"^File is closed$"):
        USES[use](file)


@pytest.mark.parametrize("use", USES)
def test_entering_again_does_not_open_again(package, path, use):
    file = package.open(path)
    with file:
        pass
    with file, pytest.raises(package.error, match=r"^File is closed$"):
        USES[use](file)


def test_leaving_closes_for_the_outer_one_too(package, path):
    with package.open(path) as outer:
        with outer as inner:
            assert inner.keys()
        with pytest.raises(package.error, match="File is closed"):
            outer.keys()


def test_without_a_context(package, path, tensors):
    assert torch.equal(package.open(path).get_tensor("matrix"), tensors["matrix"])


def test_slices_and_tensors_outlive_the_handle(package, path, tensors):
    with package.open(path) as file:
        view, tensor, everything = file.get_slice("matrix"), file.get_tensor("matrix"), file.get_tensors()
    del file
    assert view.get_shape() == [4, 6]
    assert torch.equal(view[1:3], tensors["matrix"][1:3])
    assert torch.equal(tensor, tensors["matrix"])
    assert torch.equal(everything["vector"], tensors["vector"])


def test_handles_are_independent(package, path, tensors):
    first, second = package.open(path), package.open(path)
    with first:
        pass
    assert torch.equal(second.get_tensor("vector"), tensors["vector"])


def test_a_file_without_tensors(package, tmp_path):
    path = tmp_path / "none.safetensors"
    save_file({}, path, {"k": "v"})
    with package.open(path) as file:
        assert (file.keys(), file.offset_keys(), file.get_tensors(), file.metadata()) == ([], [], {}, {"k": "v"})
    assert package.load_file(path) == package.load_arrays(path) == package.load(path.read_bytes()) == {}


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "é\u0301", "😀", " ", "a/b", "__metadata", "x" * 5000])
def test_any_name(package, tmp_path, name):
    path = tmp_path / "names.safetensors"
    save_file({name: torch.ones(2), "other": torch.zeros(2)}, path)
    with package.open(path) as file:
        assert file.keys() == sorted([name, "other"])
        assert torch.equal(file.get_tensor(name), torch.ones(2))
        assert file.get_slice(name).get_shape() == [2]
    assert torch.equal(package.load_file(path)[name], torch.ones(2))
