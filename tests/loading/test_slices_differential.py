"""Random indices into both packages: the same part or the same error, in the same words."""

import random

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

import lora_mmap

SHAPES = {"cube": (3, 4, 5), "row": (7,), "scalar": (), "no_rows": (0, 3), "no_columns": (3, 0), "bits": (2, 2)}
NUMBERS = [0, 0, 1, 2, -1, -2, 3, 4, 5, -3, -5, -6, 100, -100]
BOUNDS = [None, None, 0, 0, 1, 2, 3, 4, 5, 7, -1, -2, -3, -5, 6, 10, -10, 2**40, 2**64 - 1]
STEPS = [None] * 6 + [1, 2, 3, 10, 0, -1]
ODD = [Ellipsis, Ellipsis, None, True, False, [0], [], [0, 1], np.int64(1), 1.0, "x", 2**31, -(2**40), 2**70, range(2)]
ODD += [slice("a"), slice(np.int64(1), None), slice(1.0, 2), (0,), b"x", torch.tensor(0), torch.tensor([0, 1])]
ODD += [torch.tensor([True, False, True]), np.array([0, 1])]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "x.safetensors"
    tensors = {name: torch.arange(int(np.prod(shape))).reshape(shape).float() for name, shape in SHAPES.items()}
    save_file(tensors | {"bits": tensors["bits"] > 1}, path)
    return path


def random_index(rng):
    def item():
        kind = rng.random()
        if kind < 0.35:
            return rng.choice(NUMBERS)
        return slice(rng.choice(BOUNDS), rng.choice(BOUNDS), rng.choice(STEPS)) if kind < 0.85 else rng.choice(ODD)

    return item() if rng.random() < 0.3 else tuple(item() for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 3, 4])))


def outcome(view, index):
    try:
        part = view[index]
    except BaseException as error:  # safetensors panics on some
        kind = safetensors.SafetensorError if isinstance(error, safetensors.SafetensorError) else type(error)
        return kind.__name__, str(error)
    array = part.numpy() if isinstance(part, torch.Tensor) else part
    return "part", array.shape, array.dtype, array.tobytes()


def is_wrong(theirs):
    """Where safetensors 0.8 fails for no reason: see test_where_safetensors_is_wrong."""
    if theirs[0] == "part":
        return max(theirs[1], default=0) > 1000
    empty = theirs[0] == "SafetensorError" and "out of bounds" in theirs[1] and theirs[1].endswith("of size 0")
    return empty or theirs[0] in ("OverflowError", "SystemError", "PanicException") or "is invalid for" in theirs[1]


def is_wrong_array(theirs):
    made_up = ("cannot reshape array", "Maximum allowed dimension", "failed to unpack", "array is too big")
    return is_wrong(theirs) or (theirs[0] != "part" and any(text in theirs[1] for text in made_up))


def as_numpy(index):
    """True and False are 1 and 0 to safetensors, new dimensions to numpy."""
    items = index if isinstance(index, tuple) else (index,)
    return tuple(int(item) if isinstance(item, bool) else item for item in items)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("backend", "taken"), [("mmap", "auto"), ("auto", "mmap"), ("auto", "pread")])
def test_indices_of_torch(path, monkeypatch, backend, taken, seed):
    monkeypatch.setenv("LORA_MMAP_BACKEND", taken)
    rng = random.Random(f"torch {seed}")
    theirs = safetensors.safe_open(path, "pt", backend="mmap")
    ours = lora_mmap.safe_open(path, "pt", backend=backend)
    for _ in range(500):
        name, index = rng.choice(list(SHAPES)), random_index(rng)
        expected = outcome(theirs.get_slice(name), index)
        assert outcome(ours.get_slice(name), index) == expected, (name, index)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("framework", "backend"), [("pt", "pread"), ("np", "mmap"), ("np", "pread")])
def test_strict_indices(path, framework, backend, seed):
    rng = random.Random(f"strict {seed}")
    theirs = safetensors.safe_open(path, framework, backend=backend)
    ours = lora_mmap.safe_open(path, framework, backend=backend)
    for _ in range(500):
        name, index = rng.choice(list(SHAPES)), random_index(rng)
        expected, actual = outcome(theirs.get_slice(name), index), outcome(ours.get_slice(name), index)
        if not is_wrong_array(expected):
            assert actual == expected, (name, index)
        elif actual[0] == "part":
            part = np.asarray(ours.get_tensor(name))[as_numpy(index)]
            assert actual[1:] == (part.shape, part.dtype, part.tobytes()), (name, index)
        else:
            assert actual[0] in ("SafetensorError", "TypeError"), (name, index, expected, actual)
