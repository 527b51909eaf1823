"""Tensors and arrays in memory: each has its own storage, is writable, is nobody else's, and is like any other."""

import copy
import io
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file


def all_ways(package, path):
    """The same tensors through every call that gives tensors."""
    file = package.open(path)
    yield package.load_file(path)
    yield file.get_tensors()
    yield {name: file.get_tensor(name) for name in file.offset_keys()}
    yield package.load(path.read_bytes())


def test_each_has_a_storage_of_its_own(package, path):
    for tensors in all_ways(package, path):
        storages = [tensor.untyped_storage() for tensor in tensors.values()]
        assert len({storage._cdata for storage in storages}) == len(tensors)
        assert [storage.nbytes() for storage in storages] == [tensor.nbytes for tensor in tensors.values()]
        assert {tensor.storage_offset() for tensor in tensors.values()} == {0}
        filled = [tensor for tensor in tensors.values() if tensor.numel()]
        assert all(tensor.data_ptr() == tensor.untyped_storage().data_ptr() for tensor in filled)


def test_they_are_plain_tensors(package, path):
    for tensors in all_ways(package, path):
        for tensor in tensors.values():
            assert type(tensor) is torch.Tensor
            assert tensor.device.type == "cpu"
            assert tensor.is_contiguous()
            assert tensor.is_leaf
            assert not tensor.requires_grad
            assert not tensor.is_shared()
            assert tensor._version == 0


def test_writing_stays_with_the_writer(package, path, tensors):
    before = path.read_bytes()
    for written in all_ways(package, path):
        for tensor in written.values():
            tensor.fill_(1)
        assert written["matrix"].sum() == 24
    for fresh in all_ways(package, path):
        assert torch.equal(fresh["matrix"], tensors["matrix"])
    assert path.read_bytes() == before


@pytest.mark.parametrize("use", ["get_tensor", "get_slice"])
def test_within_one_handle_a_mapping_is_shared(package, path, use):
    """What is written to a tensor of a mapped file shows in the next one from the same handle; not under pread."""
    file = package.open(path)
    file.get_tensor("matrix").fill_(1)
    again = file.get_tensor("matrix") if use == "get_tensor" else file.get_slice("matrix")[:]
    assert bool((again == 1).all()) is package.mapped


def test_arrays_are_never_shared(package, array_path):
    expected = np.arange(24, dtype=np.float32).reshape(4, 6)
    file = package.open(array_path, "np")
    for written in (file.get_tensor("matrix"), file.get_tensors()["matrix"], file.get_slice("matrix")[:]):
        written[:] = -1
    for fresh in (file.get_tensor("matrix"), file.get_tensors()["matrix"], file.get_slice("matrix")[:]):
        assert np.array_equal(fresh, expected)
    assert np.array_equal(package.load_arrays(array_path)["matrix"], expected)


def test_arrays_are_plain_arrays(package, array_path):
    file = package.open(array_path, "np")
    in_memory = package.module.numpy.load(array_path.read_bytes())
    for arrays in (file.get_tensors(), package.load_arrays(array_path), in_memory, {"m": file.get_tensor("matrix")}):
        for array in arrays.values():
            assert type(array) is np.ndarray
            assert array.flags.writeable
            assert array.flags.c_contiguous
            assert array.flags.aligned


def test_the_path_may_go_away(package, path, tensors):
    file = package.open(path)
    view = file.get_slice("matrix")
    loaded = package.load_file(path)
    path.unlink()
    assert torch.equal(loaded["matrix"], tensors["matrix"])
    assert torch.equal(file.get_tensor("matrix"), tensors["matrix"])
    assert torch.equal(file.get_tensors()["vector"], tensors["vector"])
    assert torch.equal(view[2], tensors["matrix"][2])


def test_saving_over_a_file_that_is_open(package, path, tensors):
    """safetensors writes beside the file and renames: whoever has the old one keeps the old bytes."""
    untouched, file = package.load_file(path), package.open(path)
    view = file.get_slice("matrix")
    package.module.torch.save_file({"matrix": torch.zeros(4, 6)}, path)
    assert torch.equal(untouched["matrix"], tensors["matrix"])
    assert torch.equal(file.get_tensor("matrix"), tensors["matrix"])
    assert torch.equal(view[:], tensors["matrix"])
    assert not package.load_file(path)["matrix"].any()


def test_saving_what_was_loaded_to_where_it_was_loaded_from(package, path, tensors):
    loaded = package.load_file(path)
    loaded["matrix"] += 1
    package.module.torch.save_file(loaded, path)
    again = package.load_file(path)
    assert torch.equal(again["matrix"], tensors["matrix"] + 1)
    assert torch.equal(again["vector"], tensors["vector"])


def test_the_default_dtype_does_not_matter(package, path, tensors):
    torch.set_default_dtype(torch.float64)
    try:
        for loaded in all_ways(package, path):
            assert {name: tensor.dtype for name, tensor in loaded.items()} == {n: t.dtype for n, t in tensors.items()}
    finally:
        torch.set_default_dtype(torch.float32)


def test_default_devices_do_not_matter(package, path):
    """To tensors with elements: see test_where_safetensors_is_wrong for the others."""
    torch.set_default_device("meta")
    try:
        for loaded in all_ways(package, path):
            assert {loaded[name].device.type for name in ("matrix", "vector", "scalar", "half")} == {"cpu"}
    finally:
        torch.set_default_device(None)
    with torch.device("meta"):
        assert package.load_file(path)["matrix"].device.type == "cpu"


def test_copies(package, path, tensors):
    for loaded in all_ways(package, path):
        for name, tensor in loaded.items():
            for copied in (pickle.loads(pickle.dumps(tensor)), copy.deepcopy(tensor), tensor.clone()):
                assert torch.equal(copied, tensors[name])
                assert tensor.numel() == 0 or copied.data_ptr() != tensor.data_ptr()


def test_torch_save(package, path, tensors):
    for loaded in all_ways(package, path):
        stream = io.BytesIO()
        torch.save(loaded, stream)
        stream.seek(0)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in torch.load(stream).items())


def test_shared_memory(package, path, tensors):
    for loaded in all_ways(package, path):
        shared = loaded["matrix"].share_memory_()
        assert shared.is_shared()
        assert torch.equal(shared, tensors["matrix"])


def test_gradients(package, path):
    for loaded in all_ways(package, path):
        leaf = loaded["matrix"].requires_grad_()
        (leaf * 2).sum().backward()
        assert torch.equal(leaf.grad, torch.full((4, 6), 2.0))
        parameter = torch.nn.Parameter(loaded["half"])
        assert parameter.requires_grad


def test_loading_in_inference_mode(package, path, tensors):
    with torch.inference_mode():
        loaded = package.load_file(path)
        view = package.open(path).get_slice("matrix")[1:]
    assert all(tensor.is_inference() for tensor in [*loaded.values(), view])
    assert torch.equal(loaded["matrix"], tensors["matrix"])
    with pytest.raises(RuntimeError, match="inference tensor"):
        loaded["matrix"].add_(1)


def test_loading_without_gradients(package, path):
    with torch.no_grad():
        loaded = package.load_file(path)
    assert not any(tensor.is_inference() for tensor in loaded.values())
    assert loaded["matrix"].requires_grad_().requires_grad


def test_another_storage_may_take_its_place(package, path):
    for loaded in all_ways(package, path):
        tensor = loaded["matrix"]
        tensor.set_(torch.zeros(3))
        assert tensor.shape == (3,)
        loaded["vector"].data = torch.ones(2)
        assert loaded["vector"].shape == (2,)


def test_a_storage_that_is_a_files_cannot_grow(package, path):
    """Under pread ours can, as any tensor's; safetensors' are of a bytearray then, and cannot."""
    tensor = package.load_file(path)["matrix"]
    assert tensor.resize_(3).shape == (3,)
    if package.ours and not package.mapped:
        assert tensor.resize_(100).shape == (100,)
    else:
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.resize_(100)


def test_arrays_share_a_tensors_memory(package, path):
    tensor = package.load_file(path)["matrix"]
    array = tensor.numpy()
    assert array.flags.writeable
    array[0, 0] = 9
    assert tensor[0, 0] == 9


def test_a_file_without_a_page_to_spare(package, tmp_path):
    """The data ends exactly where a page does, so nothing beyond it may be looked at."""
    path = tmp_path / "page.safetensors"
    page = os.sysconf("SC_PAGESIZE")
    save_file({"a": torch.zeros(page, dtype=torch.uint8)}, path)
    header_nbytes = path.stat().st_size - page
    save_file({"a": torch.full((2 * page - header_nbytes,), 7, dtype=torch.uint8)}, path)
    assert path.stat().st_size == 2 * page
    assert package.load_file(path)["a"].sum() == 7 * (2 * page - header_nbytes)


def test_a_file_larger_than_a_page_of_everything(package, tmp_path):
    """Beyond what auto reads in one go, and with several threads' worth of tensors."""
    path = tmp_path / "large.safetensors"
    saved = {f"t{i}": torch.arange(i, i + 30_000, dtype=torch.int32) for i in range(20)}
    save_file(saved, path)
    for loaded in (package.load_file(path), package.load(path.read_bytes())):
        assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    arrays = package.load_arrays(path)
    assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in saved.items())
