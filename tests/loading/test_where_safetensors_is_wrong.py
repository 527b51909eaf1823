"""What safetensors 0.8.0 gets wrong and we do not copy. Each case says what is right, and that it is wrong there.

A later version that has mended a case skips it with a message: drop the case then, and compare both as elsewhere.
"""

import os
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from header_bytes import file_of, tensor_file
from other_process import python_command, run_as_nobody

import lora_mmap
from lora_mmap.errors import HeaderError, TensorError

EIGHT = torch.arange(8.0)
STRICT = [("pt", "pread"), ("np", "mmap"), ("np", "pread")]


def still_wrong(call, *expected):
    """Calls safetensors where it raises one of these, by name: a panic's class cannot be imported."""
    try:
        what = f"gives {call()!r}"
    except BaseException as error:
        if type(error).__name__ in expected:
            return
        what = f"raises {error!r}"
    changed(f"{what} instead of {' or '.join(expected)}")


def changed(what):
    text = f"safetensors {safetensors.__version__} {what}"
    if safetensors.__version__ == "0.8.0":
        pytest.fail(text)
    pytest.skip(f"{text}: drop this case")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": EIGHT, "b": EIGHT.reshape(2, 4).clone(), "none": torch.empty(0, 3), "flat": torch.empty(3, 0)}
    safetensors.torch.save_file(tensors, path)
    return path


def written(tmp_path, content):
    path = tmp_path / "written.safetensors"
    path.write_bytes(content)
    return path


# Slices that end before they begin are empty. There a size is computed that wraps around: bytearray() refuses it, or
# reshape does, or the allocator panics, or nobody notices and the shape is made up.
BACKWARDS = [
    ("a", np.index_exp[2:1], ("SystemError",)),
    ("a", np.index_exp[5:0:3], ("ValueError", "RuntimeError", "TypeError", "SystemError")),
    ("flat", np.index_exp[2:0], ("ValueError", "TypeError")),
    ("b", np.index_exp[1:0, 3:1], ("SystemError", "PanicException", "ValueError", "RuntimeError", "TypeError")),
]


@pytest.mark.parametrize(("framework", "backend"), STRICT)
@pytest.mark.parametrize(("name", "item", "errors"), BACKWARDS, ids=lambda value: str(value)[:40])
def test_slices_that_end_before_they_begin(path, framework, backend, name, item, errors):
    part = lora_mmap.safe_open(path, framework, backend=backend).get_slice(name)[item]
    assert part.shape == np.empty(lora_mmap.numpy.load_file(path)[name].shape)[item].shape
    still_wrong(lambda: safetensors.safe_open(path, framework, backend=backend).get_slice(name)[item], *errors)


def test_a_shape_that_is_made_up(path):
    item = slice(2, 0, 10)
    assert lora_mmap.safe_open(path, "np", backend="mmap").get_slice("flat")[item].shape == (0, 0)
    shape = safetensors.safe_open(path, "np").get_slice("flat")[item].shape
    if shape == (0, 0):
        changed("gives the right shape for [2:0:10]")


# Negative bounds count from the end, as everywhere in Python.
@pytest.mark.parametrize(("framework", "backend"), STRICT)
@pytest.mark.parametrize("item", [slice(-3, None), slice(None, -1), slice(-5, -2), slice(1, -1, 2)], ids=str)
def test_negative_bounds(path, framework, backend, item):
    part = lora_mmap.safe_open(path, framework, backend=backend).get_slice("a")[item]
    assert np.array_equal(np.asarray(part), EIGHT.numpy()[item])
    still_wrong(lambda: safetensors.safe_open(path, framework, backend=backend).get_slice("a")[item], "OverflowError")


# All of a dimension without elements is nothing, not out of bounds.
@pytest.mark.parametrize(("framework", "backend"), STRICT)
@pytest.mark.parametrize(
    ("name", "item"), [("none", ...), ("none", slice(None)), ("flat", np.index_exp[1, :])], ids=str
)
def test_all_of_an_empty_dimension(path, framework, backend, name, item):
    part = lora_mmap.safe_open(path, framework, backend=backend).get_slice(name)[item]
    assert part.shape == np.empty(lora_mmap.numpy.load_file(path)[name].shape)[item].shape
    still_wrong(
        lambda: safetensors.safe_open(path, framework, backend=backend).get_slice(name)[item], "SafetensorError"
    )


# load() has a table of its own, which lacks the newest types; load_file has them.
@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"), [("F8_E8M0", "[4]", 4), ("F4", "[2,4]", 4), ("F8_E8M0", "[0]", 0)], ids=str
)
def test_load_knows_every_type(tmp_path, dtype, shape, nbytes):
    content = tensor_file(f'"{dtype}"', shape, f"[0,{nbytes}]", data=bytes(range(nbytes)))
    tensor = lora_mmap.torch.load(content)["a"]
    from_file = safetensors.torch.load_file(written(tmp_path, content))["a"]
    assert (tensor.dtype, tensor.shape) == (from_file.dtype, from_file.shape)
    assert tensor.reshape(-1).view(torch.uint8).tolist() == list(range(nbytes))
    still_wrong(lambda: safetensors.torch.load(content), "KeyError")


# A type that cannot be had is an error of the package, as it is for files.
def test_load_of_a_type_that_torch_has_not():
    content = tensor_file('"F6_E2M3"', "[4]", "[0,3]", data=b"123")
    for module in (lora_mmap.torch, lora_mmap.numpy):
        with pytest.raises(TensorError, match="Dtype not understood: F6_E2M3: bytes in memory: tensor `a`"):
            module.load(content)
    still_wrong(lambda: safetensors.torch.load(content), "KeyError")


# Under pread F4 is read with the header's shape, which counts elements, into a tensor that counts pairs of them.
@pytest.mark.parametrize(("shape", "nbytes", "packed"), [("[2,4]", 4, (2, 2)), ("[0,4]", 0, (0, 2))])
def test_four_bits_under_pread(tmp_path, shape, nbytes, packed):
    path = written(tmp_path, tensor_file('"F4"', shape, f"[0,{nbytes}]", data=bytes(nbytes)))
    assert lora_mmap.torch.load_file(path, backend="pread")["a"].shape == packed
    still_wrong(lambda: safetensors.torch.load_file(path, backend="pread")["a"], "RuntimeError", "NotImplementedError")


# And so are slices of F4, mapped or not.
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_slices_of_four_bits(tmp_path, backend):
    path = written(tmp_path, tensor_file('"F4"', "[2,4]", "[0,4]", data=b"\1\2\3\4"))
    part = lora_mmap.safe_open(path, "pt", backend=backend).get_slice("a")[1:]
    assert part.reshape(-1).view(torch.uint8).tolist() == [3, 4]
    still_wrong(lambda: safetensors.safe_open(path, "pt", backend=backend).get_slice("a")[1:].shape, "RuntimeError")


# The header may say more than a tensor can have. That is the file's fault, not the caller's TypeError.
@pytest.mark.parametrize("load", ["mmap", "pread", "bytes"])
@pytest.mark.parametrize("dim", [2**63, 2**64 - 1])
def test_dimensions_beyond_63_bits(tmp_path, load, dim):
    content = tensor_file(shape=f"[0,{dim}]", offsets="[0,0]", data=b"")
    path = written(tmp_path, content)

    def loaded(module):
        return module.torch.load(content) if load == "bytes" else module.torch.load_file(path, backend=load)

    with pytest.raises((HeaderError, TensorError), match=f"dimension {dim} is more than a tensor can have.*`a`"):
        loaded(lora_mmap)
    assert lora_mmap.safe_open(path, "pt").get_slice("a").get_shape() == [0, dim]  # the header itself is good
    still_wrong(lambda: loaded(safetensors), "TypeError")


# Without elements there is nothing to stride over; mapped it works there too.
@pytest.mark.parametrize("load", ["pread", "bytes"])
def test_strides_that_overflow(tmp_path, load):
    content = tensor_file(shape=f"[0,{2**62},4]", offsets="[0,0]", data=b"")
    path = written(tmp_path, content)

    def loaded(module):
        return module.torch.load(content) if load == "bytes" else module.torch.load_file(path, backend=load)

    assert loaded(lora_mmap)["a"].shape == loaded(lora_mmap)["a"].shape == (0, 2**62, 4)
    still_wrong(lambda: loaded(safetensors)["a"].shape, "RuntimeError")


# numpy has no such types; safetensors looks for them in numpy all the same. Ours: see test_dtypes.
@pytest.mark.skipif(find_spec("ml_dtypes") is not None, reason="with ml_dtypes numpy has a bfloat16")
@pytest.mark.parametrize(("dtype", "error"), [("BF16", "TypeError"), ("F8_E4M3", "AttributeError")])
def test_types_that_numpy_lacks(tmp_path, dtype, error):
    nbytes = 4 if dtype == "BF16" else 2
    content = tensor_file(f'"{dtype}"', "[2]", f"[0,{nbytes}]", data=bytes(range(nbytes)))
    path = written(tmp_path, content)
    for array in (lora_mmap.numpy.load_file(path)["a"], lora_mmap.numpy.load(content)["a"]):
        assert array.tobytes() == bytes(range(nbytes))
    still_wrong(lambda: safetensors.numpy.load_file(path), error)
    still_wrong(lambda: safetensors.numpy.load(content), "KeyError")


# The caller said cpu. get_tensor and load_file obey; a slice of a mapping goes where `with torch.device` says.
def test_slices_go_where_they_were_asked_to(path):
    with torch.device("meta"):
        ours, theirs = (
            module.safe_open(path, "pt", device="cpu", backend="mmap").get_slice("a")[2:]
            for module in (lora_mmap, safetensors)
        )
    assert torch.equal(ours, EIGHT[2:])
    if theirs.device.type == "cpu":
        changed("keeps slices on the CPU")


# And so do empty tensors where they are made with zeros() or empty().
@pytest.mark.parametrize("load", ["pread", "bytes"])
def test_empty_tensors_go_where_they_were_asked_to(path, load):
    def loaded(module):
        return module.torch.load(path.read_bytes()) if load == "bytes" else module.torch.load_file(path, backend=load)

    torch.set_default_device("meta")
    try:
        ours, theirs = (loaded(module) for module in (lora_mmap, safetensors))
    finally:
        torch.set_default_device(None)
    assert {tensor.device.type for tensor in ours.values()} == {"cpu"}
    if theirs["none"].device.type == "cpu":
        changed("makes empty tensors on the CPU")


# The order of the file, as load_file has it. There it is a hash map's.
def test_load_has_an_order():
    names = [f"t{i:02}" for i in range(20)]
    content = safetensors.torch.save({name: torch.zeros(1) for name in reversed(names)})
    assert list(lora_mmap.torch.load(content)) == list(lora_mmap.numpy.load(content)) == names
    if list(safetensors.torch.load(content)) == names:
        changed("loads in the order of the file")


# Empty tensors lie at one offset with the next one; in between, the header's order is as good as any, and stays.
def test_empty_tensors_have_an_order(tmp_path):
    names = [f"e{i}" for i in range(20)][::-1]
    path = written(tmp_path, file_of("{" + ",".join(f'"{name}":["U8",[0],[0,0]]' for name in names) + "}"))
    assert lora_mmap.safe_open(path, "pt").offset_keys() == list(lora_mmap.torch.load_file(path)) == names
    if len({tuple(safetensors.safe_open(path, "pt").offset_keys()) for _ in range(5)}) == 1:
        changed("has one order for empty tensors")


# Of two tensors at one place the second is in the way of the first. There it is either.
def test_the_tensor_that_is_in_the_way_is_the_second(tmp_path):
    names = [f"e{i}" for i in range(20)]
    path = written(tmp_path, file_of("{" + ",".join(f'"{name}":["U8",[1],[0,1]]' for name in names) + "}", b"1"))
    with pytest.raises(HeaderError, match="invalid offset for tensor `e1`"):
        lora_mmap.safe_open(path, "pt")
    texts = set()
    for _ in range(5):
        with pytest.raises(safetensors.SafetensorError, match="invalid offset for tensor") as caught:
            safetensors.safe_open(path, "pt")
        texts.add(str(caught.value))
    if len(texts) == 1:
        changed("names one and the same tensor")


# A file may have any name that the file system takes. There torch is handed the name of a mapped file as UTF-8.
def test_a_name_that_is_not_utf8(path):
    name = os.fsdecode(os.fsencode(path.parent) + b"/\xff.safetensors")
    path.rename(name)
    assert torch.equal(lora_mmap.torch.load_file(name, backend="mmap")["a"], EIGHT)
    still_wrong(lambda: safetensors.torch.load_file(name), "SafetensorError", "UnicodeEncodeError")


# "No such device" is what mmap says of a folder.
def test_a_folder_is_not_a_device(tmp_path):
    with pytest.raises(IsADirectoryError):
        lora_mmap.torch.load_file(tmp_path)
    with pytest.raises(OSError, match=r".") as caught:
        safetensors.torch.load_file(tmp_path)
    if "No such device" not in str(caught.value):
        changed(f"raises {caught.value!r}")


# A file that may not be read is not missing. Ours is both errors, for those who catch either: see test_bad_files.
def test_a_file_that_may_not_be_read(path):
    path.chmod(0)
    script = """
try:
    safetensors.safe_open("x.safetensors", "np")
except OSError as error:
    print(type(error).__name__, error)
"""
    said = run_as_nobody(path.parent, "import safetensors", script).stdout
    if said != "FileNotFoundError No such file or directory: x.safetensors\n":
        changed(f"says {said!r}")


# Nobody writes a model into a FIFO. There opening one waits until somebody does.
def test_a_fifo(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = """
import sys, safetensors
print("ready", flush=True)
try:
    safetensors.safe_open(sys.argv[1], "np")
except OSError:
    pass
"""
    process = subprocess.Popen(**python_command(script, fifo), stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return
    finally:
        process.kill()
        process.communicate()
    changed("does not wait for a FIFO's writer")
