"""Who holds safetensors' loaders, and whether loading went through lora_mmap."""

import sys
from types import ModuleType

import numpy as np
import torch

import lora_mmap
from lora_mmap import _C

NAMES = [
    ("safetensors", "safe_open"),
    ("safetensors.torch", "safe_open"),
    ("safetensors.torch", "load_file"),
    ("safetensors.torch", "load"),
    ("safetensors.torch", "load_model"),
    ("safetensors.numpy", "safe_open"),
    ("safetensors.numpy", "load_file"),
    ("safetensors.numpy", "load"),
]
assert not lora_mmap.installed()
ORIGINALS = {(module, name): vars(sys.modules[module])[name] for module, name in NAMES}


def holders():
    """{(module, name): original} of everybody who holds one of safetensors' own loaders."""
    originals = {id(value): value for value in ORIGINALS.values()}
    found = {}
    for key, module in list(sys.modules.items()):
        if issubclass(type(module), ModuleType):
            for name, value in list(vars(ModuleType)["__dict__"].__get__(module).items()):
                if id(value) in originals:
                    found[key, name] = originals[id(value)]
    return found


def headers_parsed_by(load):
    """(what ``load()`` returns, how many files or bytes objects the native core parsed the header of for it)."""
    before = _C.counters()["headers_parsed"]
    loaded = load()
    return loaded, _C.counters()["headers_parsed"] - before


def load_both_ways(load, files=1):
    """(safetensors' result, ours) of the same code. Fails unless the second, and only the second, went through us.

    ``files``: how many the code has to read at least.
    """
    theirs, parsed = headers_parsed_by(load)
    assert parsed == 0
    with lora_mmap.installed():
        ours, parsed = headers_parsed_by(load)
    assert parsed >= files, "not everything was read through lora_mmap"
    _, parsed = headers_parsed_by(load)
    assert parsed == 0
    return theirs, ours


def assert_same_tensors(ours, theirs):
    """Names and their order, bytes, element types, shapes, strides, devices."""
    assert list(ours) == list(theirs)
    assert theirs
    for name, tensor in theirs.items():
        mine = ours[name]
        assert type(mine) is type(tensor), name
        assert mine.dtype == tensor.dtype, name
        assert mine.shape == tensor.shape, name
        if isinstance(tensor, np.ndarray):
            assert mine.tobytes() == tensor.tobytes(), name
            assert mine.flags.writeable == tensor.flags.writeable, name
            continue
        assert mine.stride() == tensor.stride(), name
        assert mine.device == tensor.device, name
        assert mine.requires_grad == tensor.requires_grad, name
        assert torch.equal(mine, tensor), name
