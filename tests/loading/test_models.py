"""Whole models: parameters that share memory are in the file once, and what is missing or too much is named."""

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn


class Pair(nn.Module):
    """Two matrices and a norm; with ``tied`` the matrices are one."""

    def __init__(self, tied):
        super().__init__()
        self.a = nn.Linear(3, 4, bias=False)
        self.b = nn.Linear(3, 4, bias=False)
        self.norm = nn.BatchNorm1d(4)
        if tied:
            self.b.weight = self.a.weight


class Halves(nn.Module):
    """Two buffers in one storage, neither of which is all of it."""

    def __init__(self):
        super().__init__()
        whole = torch.arange(12.0)
        self.register_buffer("first", whole[:6])
        self.register_buffer("second", whole[6:])


NORM = [f"norm.{name}" for name in ("bias", "num_batches_tracked", "running_mean", "running_var", "weight")]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, expected):
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back(package, file, tied):
    saved, loaded = Pair(tied), Pair(tied)
    package.module.torch.save_model(saved, file)
    missing, unexpected = package.load_model(loaded, file)
    assert (set(missing), unexpected) == (set(), [])
    assert_same(loaded, weights(saved))
    assert (loaded.a.weight is loaded.b.weight) is tied


def test_what_is_shared_is_in_the_file_once(package, file):
    package.module.torch.save_model(Pair(tied=True), file, {"k": "v"})
    with package.open(file) as opened:
        assert opened.keys() == ["a.weight", *NORM]
        assert opened.metadata() == {"k": "v", "b.weight": "a.weight"}


def test_a_file_that_kept_the_other_name(package, file):
    model = Pair(tied=True)
    expected = {name: torch.randn(4, 3) if name == "b.weight" else tensor for name, tensor in weights(model).items()}
    del expected["a.weight"]
    save_file(expected, file)
    missing, unexpected = package.load_model(model, file)
    assert (set(missing), unexpected) == (set(), [])
    assert torch.equal(model.a.weight, expected["b.weight"])


def test_a_file_of_a_model_that_shares_less(package, file):
    save_model(Pair(tied=False), file)
    model = Pair(tied=True)
    with pytest.raises(RuntimeError) as caught:
        package.load_model(model, file)
    assert (
        str(caught.value) == 'Error(s) in loading state_dict for Pair:\n    Unexpected key(s) in state_dict: "b.weight"'
    )
    missing, unexpected = package.load_model(model, file, strict=False)
    assert (set(missing), unexpected) == (set(), ["b.weight"])


def test_a_file_of_a_model_that_shares_more(package, file):
    save_model(Pair(tied=True), file)
    model = Pair(tied=False)
    with pytest.raises(RuntimeError) as caught:
        package.load_model(model, file)
    assert str(caught.value) == 'Error(s) in loading state_dict for Pair:\n    Missing key(s) in state_dict: "b.weight"'
    missing, unexpected = package.load_model(model, file, strict=False)
    assert (set(missing), unexpected) == ({"b.weight"}, [])


def test_missing_and_unexpected_names_are_sorted_and_quoted(package, file):
    save_file({"z": torch.zeros(1), "c.weight": torch.zeros(1), "a.weight": torch.ones(4, 3)}, file)
    model = Pair(tied=False)
    expected = (
        "Error(s) in loading state_dict for Pair:\n"
        '    Missing key(s) in state_dict: "b.weight", "norm.bias", "norm.running_mean", "norm.running_var", '
        '"norm.weight"\n'
        '    Unexpected key(s) in state_dict: "c.weight", "z"'
    )
    with pytest.raises(RuntimeError) as caught:
        package.load_model(model, file)
    assert str(caught.value) == expected
    assert torch.equal(model.a.weight, torch.ones(4, 3))  # what fits was loaded all the same


def test_not_strict_loads_what_there_is(package, file):
    model = Pair(tied=False)
    before = weights(model)
    save_file({"b.weight": torch.ones(4, 3), "more": torch.zeros(1)}, file)
    missing, unexpected = package.load_model(model, file, strict=False)
    assert set(missing) == {"a.weight", *NORM} - {"norm.num_batches_tracked"}
    assert unexpected == ["more"]
    assert_same(model, before | {"b.weight": torch.ones(4, 3)})


def test_a_weight_of_another_shape(package, file):
    save_file(weights(Pair(tied=False)) | {"b.weight": torch.ones(4, 4)}, file)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"size mismatch for b\.weight"):
            package.load_model(Pair(tied=False), file, strict=strict)


def test_halves_of_a_storage(package, file):
    save_file({"first": torch.zeros(6), "second": torch.zeros(6)}, file)
    with pytest.raises(RuntimeError, match="None is covering the entire storage"):
        package.load_model(Halves(), file)


def test_weights_of_another_type_are_cast(package, file):
    expected = weights(Pair(tied=False))
    save_file({name: tensor.double() for name, tensor in expected.items()}, file)
    model = Pair(tied=False)
    package.load_model(model, file)
    assert_same(model, expected)
    assert model.a.weight.dtype == torch.float32


def test_the_model_does_not_hang_on_the_file(package, file):
    saved, model = Pair(tied=False), Pair(tied=False)
    save_model(saved, file)
    package.load_model(model, file)
    file.write_bytes(bytes(file.stat().st_size))
    assert_same(model, weights(saved))


def test_ways_to_call(package, file):
    save_model(Pair(tied=False), file)
    load_model = package.module.torch.load_model
    for call in (
        lambda model: load_model(model, file),
        lambda model: load_model(model, str(file), True, "cpu"),
        lambda model: load_model(model=model, filename=file, strict=False, device="cpu", backend="pread"),
    ):
        missing, unexpected = call(Pair(tied=False))
        assert (set(missing), unexpected) == (set(), [])
    with pytest.raises(TypeError):
        load_model(Pair(tied=False), file, True, "cpu", "mmap")


def test_errors_of_the_file_come_through(package, file):
    with pytest.raises(FileNotFoundError):
        package.load_model(Pair(tied=False), file)
    save_model(Pair(tied=False), file)
    with pytest.raises(package.error, match="device meta is invalid"):
        package.load_model(Pair(tied=False), file, device="meta")
    with pytest.raises(package.error, match='backend "x" is invalid'):
        package.load_model(Pair(tied=False), file, backend="x")


def test_a_model_in_inference_mode(package, file):
    saved, model = Pair(tied=True), Pair(tied=True)
    save_model(saved, file)
    with torch.inference_mode():
        package.load_model(model, file)
    assert_same(model, weights(saved))
