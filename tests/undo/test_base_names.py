"""Which tensor of a checkpoint a parameter may have come from: names, prefixes, ties, shapes, dtypes, layouts."""

import copy

import pytest
import torch
from base_values import bits
from safetensors.torch import save_file
from torch import nn

from lora_mmap import _C
from lora_mmap.base_checkpoint import BaseCheckpoint
from lora_mmap.base_names import Prefix, common_prefix, parameter_names
from lora_mmap.geometry import Geometry
from lora_mmap.lowering.jobs import Place, place_of
from lora_mmap.model_weights import ModelWeights


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (["a.weight", "b.c.weight"], Prefix()),
        (
            ["model.diffusion_model.a.weight", "model.diffusion_model.b.c.weight", "vae.x"],
            Prefix("model.diffusion_model."),
        ),
        (["transformer.a.weight", "transformer.b.c.weight", "a.weight"], Prefix("transformer.")),
        (["a.weight", "b.c.weight", "ema.a.weight", "ema.b.c.weight"], Prefix()),
        (["x.a.weight", "y.a.weight", "y.b.c.weight"], Prefix("y.")),
        (["weight", "c.weight"], Prefix(removed="b.")),
        (["else.weight"], Prefix()),
        ([], Prefix()),
    ],
    ids=["same", "ldm", "transformer", "the name itself first", "the most", "removed", "none", "empty"],
)
def test_the_common_prefix(file, expected):
    model = ["a.weight", "b.c.weight"]
    assert common_prefix(model, file) == expected
    assert common_prefix(model[::-1], file[::-1]) == expected


def saved(tensors, folder):
    path = folder / "base.safetensors"
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path)
    return BaseCheckpoint.open(path)


def looked_up(model, base):
    """{path: (geometry, tensor of the file or None)} of all parameters."""
    weights = ModelWeights(model)
    base.learn_names(parameter_names(weights.index))
    found = {}
    for number in range(len(weights.index.module_names)):
        for key in weights.index.entry(number).parameters:
            geometry = weights.place(number, key)
            if isinstance(geometry, Geometry):
                found[geometry.path] = geometry, base.find([geometry.path], geometry)
    return found


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "compiled"])
def test_every_parameter_by_its_canonical_name(prefix, wrap, small, tmp_path):
    state = {prefix + name: value for name, value in small.state_dict().items()}
    model = torch.compile(small, backend="eager") if wrap else small
    with saved(state, tmp_path) as base:
        found = looked_up(model, base)
        assert {path: tensor.name for path, (_, tensor) in found.items()} == {
            name: prefix + name for name in small.state_dict()
        }
        items = [tensor.values(geometry, place_of(geometry)) for geometry, tensor in found.values()]
        assert _C.equals_file(items, 2) == [True] * 7


def test_a_model_that_is_deeper_than_its_file(small, tmp_path):
    with saved(small.state_dict(), tmp_path) as base:
        found = looked_up(nn.ModuleDict({"text_model": small}), base)
        assert {tensor.name for _, tensor in found.values()} == set(small.state_dict())
        assert base.learn_names(["text_model.first.weight", "text_model.none.weight"]) == 1


def test_without_learned_names_only_the_name_itself_counts(small, tmp_path):
    weights = ModelWeights(small)
    geometry = weights.look(0)
    with saved({f"unet.{name}": value for name, value in small.state_dict().items()}, tmp_path) as base:
        assert base.find([geometry.path], geometry) is None
        base.learn_names(parameter_names(weights.index))
        assert base.find([geometry.path], geometry).name == f"unet.{geometry.path}"


def test_tied_weights_have_several_names(tmp_path):
    geometry = ModelWeights(nn.Sequential(nn.Linear(3, 4, bias=False))).look(0)
    values = {"model.embed.weight": torch.ones(4, 3), "model.other.weight": torch.ones(4, 3)}
    with saved(values, tmp_path) as base:
        base.learn_names(["embed.weight", "other.weight", "lm_head.weight"])
        assert base.find(["lm_head.weight", "embed.weight"], geometry).name == "model.embed.weight"
        assert base.find(["lm_head.weight"], geometry) is None
        assert base.find(["other.weight", "model.embed.weight"], geometry).name == "model.embed.weight"
        assert base.find([], geometry) is None


@pytest.mark.parametrize(
    ("stored", "fits"),
    [
        (torch.zeros(4, 3, dtype=torch.bfloat16), True),
        (torch.zeros(4, 3, dtype=torch.float16), True),
        (torch.zeros(4, 3), True),
        (torch.zeros(4, 3, dtype=torch.float64), False),
        (torch.zeros(4, 3, dtype=torch.float8_e4m3fn), False),
        (torch.zeros(4, 3, dtype=torch.int32), False),
        (torch.zeros(3, 4), False),
        (torch.zeros(12), False),
        (torch.zeros(4, 3, 1, 1), False),
    ],
    ids=lambda value: f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else "",
)
def test_what_a_weight_can_have_been_loaded_from(stored, fits, tmp_path):
    model = nn.Sequential(nn.Linear(3, 4, bias=False)).half()
    with saved({"0.weight": stored}, tmp_path) as base:
        geometry = ModelWeights(model).look(0)
        assert (base.find([geometry.path], geometry) is not None) == fits


def test_a_misfit_under_the_name_itself_hides_nothing(tmp_path):
    geometry = ModelWeights(nn.Sequential(nn.Linear(3, 4, bias=False))).look(0)
    with saved({"0.weight": torch.zeros(5, 3), "ema.0.weight": torch.zeros(4, 3)}, tmp_path) as base:
        base.learn_names(["0.weight", "1.weight"])
        assert base.find(["0.weight"], geometry) is None
        base.learn_names(["ema.0.weight"])
        assert base.find(["0.weight", "ema.0.weight"], geometry).name == "ema.0.weight"


def test_float64_comes_from_float64_alone(tmp_path):
    geometry = ModelWeights(nn.Sequential(nn.Linear(3, 4, bias=False)).double()).look(0)
    with saved({"a": torch.zeros(4, 3), "b": torch.zeros(4, 3, dtype=torch.float64)}, tmp_path) as base:
        assert base.find(["a", "b"], geometry).name == "b"


def test_tensors_are_equal_when_their_bytes_are(tmp_path):
    values = {"a": torch.zeros(4, 3), "b": torch.zeros(4, 3)}
    geometry = ModelWeights(nn.Sequential(nn.Linear(3, 4, bias=False))).look(0)
    with saved(values, tmp_path) as base, BaseCheckpoint.open(base.paths[0]) as again:
        a, b = (base.find([name], geometry) for name in "ab")
        assert a == again.find(["a"], geometry)
        assert hash(a) == hash(again.find(["a"], geometry))
        assert a != b
        (tmp_path / "other").mkdir()
        with saved(values, tmp_path / "other") as other:
            assert a != other.find(["a"], geometry)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last(dtype, small, tmp_path):
    """The file has the columns in their logical order, the weight in that of its memory."""
    with saved(small.state_dict(), tmp_path) as base:
        model = copy.deepcopy(small).to(dtype).to(memory_format=torch.channels_last)
        geometry, tensor = looked_up(model, base)["conv.weight"]
        assert geometry.column_map is not None
        _check_reading_and_comparing(geometry, tensor)


@pytest.mark.parametrize("shape", [(23, 37), (24, 24)], ids=["oblong", "square"])
def test_conv1d_of_transformers(shape, tmp_path):
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D(shape[1], shape[0])
    model = nn.Sequential(conv1d)
    nn.init.normal_(conv1d.weight)
    with saved(model.state_dict(), tmp_path) as base:
        geometry, tensor = looked_up(model, base)["0.weight"]
        assert (geometry.rows, geometry.cols) == shape[::-1]
        _check_reading_and_comparing(geometry, tensor, as_stored=True)


def test_a_square_weight_that_is_a_transpose(tmp_path):
    """Not to be confused with Conv1D: its rows are the first dimension of its tensor."""
    model = nn.Sequential(nn.Linear(24, 24, bias=False))
    model[0].weight = nn.Parameter(torch.randn(24, 24).t())
    with saved(model.state_dict(), tmp_path) as base:
        _check_reading_and_comparing(*looked_up(model, base)["0.weight"])


def _check_reading_and_comparing(geometry, tensor, as_stored=False):
    """``as_stored``: the weight's rows are the second dimension of its tensor."""
    items = [tensor.values(geometry, place_of(geometry))]
    assert _C.equals_file(items, 1) == [True]
    pristine = bits(geometry.weight)
    geometry.weight.data[2, 1].view(-1)[0] += 1
    assert _C.equals_file(items, 1) == [False]
    copied = torch.zeros(geometry.rows, geometry.cols, dtype=geometry.weight.dtype)
    to_copy = [tensor.values(geometry, Place(copied.data_ptr(), geometry.cols, 1))]
    _C.read_converted(to_copy + items, 1)
    assert torch.equal(bits(geometry.weight), pristine)
    assert _C.equals_file(to_copy, 1) == [True]
    columns = slice(None) if geometry.column_map is None else geometry.column_map.argsort()
    in_file = copied[:, columns] if not as_stored else copied.t()
    assert torch.equal(bits(in_file).reshape(geometry.shape), pristine)
