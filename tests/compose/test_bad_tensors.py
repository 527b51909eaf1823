"""Adapters whose tensors are wrong: a clear error, and every weight byte-identical after it."""

import pytest
import torch
from adapter_tensors import write
from bad_input import assert_says, good

import lora_mmap
from lora_mmap.errors import AdapterError, FusionOverflowError

NAN, INF = float("nan"), float("inf")


def altered(model, **changes):
    """A good adapter with some of its tensors replaced, or left out where the value is None."""
    tensors = good(model)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    return tensors


def with_value(model, key, value):
    tensors = good(model)
    tensors[key].view(-1)[0] = value
    return tensors


# Each: (what is wrong, source made from model and folder, class, words of the message besides function and file).
TENSOR_FAULTS = {
    "up missing": (lambda m: altered(m, first__lora_B__weight=None), AdapterError, ["first.lora_A.weight", "no up"]),
    "down missing": (
        lambda m: altered(m, first__lora_A__weight=None),
        AdapterError,
        ["first.lora_B.weight", "no down"],
    ),
    "only alpha": (
        lambda m: altered(m, first__lora_A__weight=None, first__lora_B__weight=None),
        AdapterError,
        ["first.alpha"],
    ),
    "too many columns": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 24)),
        AdapterError,
        ["first.lora_A.weight", "[4, 24]", "[37, 23]"],
    ),
    "too few rows": (
        lambda m: altered(m, first__lora_B__weight=torch.zeros(36, 4)),
        AdapterError,
        ["first.lora_B.weight", "[36, 4]", "[37, 23]"],
    ),
    "transposed": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(23, 4), first__lora_B__weight=torch.zeros(4, 37)),
        AdapterError,
        ["first", "[23, 4]", "[4, 37]"],
    ),
    "ranks disagree": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(3, 23)),
        AdapterError,
        ["first.lora_A.weight", "first.lora_B.weight", "rank 3", "rank 4"],
    ),
    "rank zero": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(0, 23), first__lora_B__weight=torch.zeros(37, 0)),
        AdapterError,
        ["first.lora_A.weight", "rank 0"],
    ),
    "one dimension": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(92)),
        AdapterError,
        ["first.lora_A.weight", "[92]"],
    ),
    "kernel axes swapped": (
        lambda m: altered(m, conv__lora_A__weight=torch.zeros(4, 3, 3, 5)),
        AdapterError,
        ["conv.lora_A.weight", "[4, 3, 3, 5]"],
    ),
    "integers": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 23, dtype=torch.int32)),
        AdapterError,
        ["first.lora_A.weight", "I32"],
    ),
    "bytes": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 23, dtype=torch.uint8)),
        AdapterError,
        ["first.lora_A.weight", "U8"],
    ),
    "alpha NaN": (lambda m: altered(m, first__alpha=torch.tensor(NAN)), AdapterError, ["first", "alpha", "nan"]),
    "alpha inf": (lambda m: altered(m, first__alpha=torch.tensor(INF)), AdapterError, ["first", "alpha", "inf"]),
    "alpha of two": (lambda m: altered(m, first__alpha=torch.ones(2)), AdapterError, ["first.alpha", "one element"]),
    "NaN in down": (lambda m: with_value(m, "second.lora_A.weight", NAN), FusionOverflowError, ["second.weight"]),
    "NaN in up": (lambda m: with_value(m, "second.lora_B.weight", NAN), FusionOverflowError, ["second.weight"]),
    "inf in down": (lambda m: with_value(m, "conv.lora_A.weight", INF), FusionOverflowError, ["conv.weight"]),
    "-inf in up": (lambda m: with_value(m, "conv.lora_B.weight", -INF), FusionOverflowError, ["conv.weight"]),
    "too large": (
        lambda m: altered(m, first__lora_A__weight=torch.full((4, 23), 3e38), first__lora_B__weight=torch.ones(37, 4)),
        FusionOverflowError,
        ["first.weight"],
    ),
    "key with two downs": (
        lambda m: altered(m, first__lora_down__weight=torch.zeros(4, 23)),
        AdapterError,
        ["first.lora_A.weight", "first.lora_down.weight"],
    ),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
@pytest.mark.parametrize("kind", ["file", "dict"])
def test_faulty_tensors(model, tmp_path, fault, kind):
    make, kind_of_error, words = TENSOR_FAULTS[fault]
    tensors = make(model)
    source, name = tensors, "dict"
    if kind == "file":
        source = write(tmp_path / "faulty.safetensors", tensors)
        name = source
    with pytest.raises(kind_of_error) as error:
        lora_mmap.compose(model, [(good(model), 0.1), (source, 1.0)])
    assert_says(error, "[", "]", name, *words)


@pytest.mark.parametrize(
    "value", [3.5j, "text", None, [1.0], torch.zeros(2).to_sparse(), torch.empty(2, device="meta")]
)
def test_dict_with_something_else_than_tensors(model, value):
    tensors = good(model) | {"third.lora_A.weight": value}
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(tensors, 1.0)])
    assert_says(error, "third.lora_A.weight")
