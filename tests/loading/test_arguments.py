"""What may be passed for a file, a framework, a device and a backend, and what is said about the rest."""

import re
from pathlib import Path

import pytest
import safetensors
import torch

import lora_mmap
from lora_mmap.errors import ArgumentError, LoaderArgumentError


class PathOf:
    """A path of nobody's library."""

    def __init__(self, what):
        self.what = what

    def __fspath__(self):
        return self.what


def said(call):
    """The exception in words, so that two packages can be compared; None where there was none."""
    try:
        call()
    except BaseException as error:
        kind = safetensors.SafetensorError if isinstance(error, safetensors.SafetensorError) else type(error)
        return f"{kind.__name__}: {error}"
    return None


@pytest.mark.parametrize("kind", [str, Path, lambda path: PathOf(str(path))])
def test_kinds_of_paths(package, path, kind):
    assert package.open(kind(path)).keys()
    assert package.load_file(kind(path))


@pytest.mark.parametrize(
    ("filename", "text"),
    [
        (b"x", "argument 'filename': 'bytes' object is not an instance of 'str'"),
        (PathOf(b"x"), "argument 'filename': 'bytes' object is not an instance of 'str'"),
        (None, "argument 'filename': expected str, bytes or os.PathLike object, not NoneType"),
        (3, "argument 'filename': expected str, bytes or os.PathLike object, not int"),
        (bytearray(b"x"), "argument 'filename': expected str, bytes or os.PathLike object, not bytearray"),
        (PathOf(3), "expected PathOf.__fspath__() to return str or bytes, not int"),
    ],
)
def test_what_is_no_path(package, filename, text):
    for load in (package.open, package.load_file, package.load_arrays):
        with pytest.raises(TypeError, match=re.escape(text)):
            load(filename)


def test_an_open_file_is_no_path(package, path):
    with path.open("rb") as stream, pytest.raises(TypeError, match="not BufferedReader"):
        package.open(stream)


@pytest.mark.parametrize("framework", ["PT", "", "np ", "cupy", "torch.Tensor"])
def test_a_framework_that_there_is_not(package, path, framework):
    with pytest.raises(package.error, match=re.escape(f"framework {framework} is invalid")):
        package.open(path, framework)


@pytest.mark.parametrize(("framework", "what"), [(None, "'None'"), (3, "'int' object"), (torch, "'module' object")])
def test_what_is_no_framework(package, path, framework, what):
    with pytest.raises(TypeError, match=f"argument 'framework': {what} is not an instance of 'str'"):
        package.open(path, framework)


@pytest.mark.parametrize("framework", ["tf", "tensorflow", "jax", "flax", "mlx", "paddle"])
def test_other_frameworks_are_safetensors_own(path, framework):
    """It opens some without the library being there, and says so when a tensor is asked for."""

    def outcomes(module):
        opening = said(lambda: module.safe_open(path, framework))
        getting = said(lambda: module.safe_open(path, framework).get_tensor("vector"))
        return opening, getting, said(lambda: module.safe_open(path, framework, backend="pread").metadata())

    assert outcomes(lora_mmap) == outcomes(safetensors)


@pytest.mark.parametrize("backend", ["x", None, 3])
def test_other_frameworks_and_their_backends(path, backend):
    texts = [said(lambda m=module: m.safe_open(path, "jax", backend=backend)) for module in (lora_mmap, safetensors)]
    assert texts[0] == texts[1] is not None


def test_other_frameworks_take_our_default_backend(path):
    assert lora_mmap.safe_open(path, "jax", backend="auto").keys()


@pytest.mark.parametrize("device", ["cpu", None])
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_the_cpu(package, path, device, framework):
    assert package.open(path, framework, device=device).metadata()


DEVICES = [
    "cuda",
    "cuda:0",
    "cuda:3",
    "cuda:+1",
    "cuda:007",
    "mps",
    "mps:0",
    "npu:1",
    "xpu",
    "xla",
    "mlu",
    "hpu",
    "musa",
]
DEVICES += [0, 7, True, 2**64 - 1, f"cuda:{2**64 - 1}"]
NO_DEVICES = [
    "",
    "CPU",
    "cpu:0",
    "cpu ",
    "meta",
    "vulkan",
    "privateuseone",
    "cuda:0:0",
    "mps:1",
    -1,
    2**64,
    1.0,
    b"cpu",
]
NO_DEVICES += [[], ..., "cuda:", "cuda:x", "cuda:-1", "cuda: 1", "cuda:1_0", "mps:", f"cuda:{2**64}"]


@pytest.mark.parametrize("device", DEVICES)
def test_devices_are_not_looked_for_before_they_are_used(package, path, device):
    file = package.open(path, device=device)
    assert file.get_slice("matrix").get_shape() == [4, 6]


@pytest.mark.parametrize("device", NO_DEVICES, ids=repr)
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_what_is_no_device(package, path, framework, device):
    expected = said(lambda: safetensors.safe_open(path, framework, device=device))
    assert expected is not None
    assert said(lambda: package.open(path, framework, device=device)) == expected


def test_an_integer_of_another_library(package, path):
    numpy = pytest.importorskip("numpy")
    assert package.open(path, device=numpy.int64(0)).keys()
    with pytest.raises(package.error, match="is invalid"):
        package.open(path, device=numpy.float32(0))


@pytest.mark.parametrize("device", DEVICES, ids=repr)
def test_numpy_is_on_the_cpu(package, path, device):
    expected = said(lambda: safetensors.safe_open(path, "np", device=device))
    assert "is not supported for framework numpy" in expected
    assert said(lambda: package.open(path, "np", device=device)) == expected


def test_a_torch_device_is_a_device_too(path):
    """safetensors 0.8 refuses every torch.device."""
    assert lora_mmap.torch.load_file(path, torch.device("cpu"))["scalar"] == 3.5
    assert lora_mmap.safe_open(path, "np", torch.device("cpu")).keys()
    assert lora_mmap.safe_open(path, "pt", torch.device("cuda", 1)).keys()
    with pytest.raises(LoaderArgumentError, match=r"device device\(type='meta'\) is invalid"):
        lora_mmap.safe_open(path, "pt", torch.device("meta"))
    with pytest.raises(LoaderArgumentError, match="Device cuda:1 is not supported for framework numpy"):
        lora_mmap.safe_open(path, "np", torch.device("cuda", 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", 0])
def test_a_device_that_is_not_there(package, path, device):
    with pytest.raises(RuntimeError):
        package.load_file(path, device=device)


@pytest.mark.parametrize("backend", ["", "x", "MMAP", "mmap "])
def test_a_backend_that_there_is_not(package, path, backend):
    text = f'backend "{backend}" is invalid (expected one of: '
    for load in (package.open, package.load_file, package.module.numpy.load_file):
        with pytest.raises(package.error, match=re.escape(text) + r'.*"mmap", "pread"\)'):
            load(path, backend=backend)


@pytest.mark.parametrize(("backend", "what"), [(None, "'None'"), (3, "'int' object"), (b"mmap", "'bytes' object")])
def test_what_is_no_backend(package, path, backend, what):
    with pytest.raises(TypeError, match=f"argument 'backend': {what} is not an instance of 'str'"):
        package.open(path, backend=backend)


def test_ours_are_argument_errors_too(path):
    for how in ({"framework": "pt", "device": "meta"}, {"framework": "pt", "backend": "x"}):
        with pytest.raises(ArgumentError):
            lora_mmap.safe_open(path, **how)


@pytest.mark.parametrize(
    "how",
    [
        {"filename": "nothing", "framework": "x"},
        {"filename": "nothing", "framework": "pt", "device": "x"},
        {"framework": "x", "device": "x", "backend": "x"},
        {"framework": "x", "backend": 3},
        {"framework": 3, "device": "x"},
        {"framework": "pt", "device": "x", "backend": "x"},
        {"filename": 3, "framework": 3},
        {"filename": "nothing", "framework": "np", "device": "cuda"},
    ],
)
def test_of_several_mistakes_the_same_is_named(path, how):
    texts = [said(lambda m=module: m.safe_open(**{"filename": path} | how)) for module in (lora_mmap, safetensors)]
    assert texts[0] == texts[1] is not None


def test_ways_to_call(package, path):
    module = package.module
    assert module.safe_open(filename=path, framework="pt", device="cpu", backend="pread").keys()
    assert module.safe_open(path, "pt", "cpu").keys()
    assert module.torch.load_file(path, "cpu")
    assert module.torch.load_file(filename=path, device="cpu", backend="mmap")
    assert module.torch.load(data=path.read_bytes())


def test_ways_not_to_call(package, path):
    module = package.module
    for call in (
        lambda: module.safe_open(),
        lambda: module.safe_open(path),
        lambda: module.safe_open(path, "pt", "cpu", "mmap"),
        lambda: module.safe_open(path, "pt", mode="r"),
        lambda: module.torch.load_file(),
        lambda: module.torch.load_file(path, "cpu", "mmap"),
        lambda: module.numpy.load_file(path, "mmap"),
        lambda: module.torch.load(),
        lambda: module.safe_open(path, "pt").get_tensor(),
        lambda: module.safe_open(path, "pt").get_slice("matrix", 1),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(("name", "what"), [(None, "'None'"), (3, "'int' object"), (b"matrix", "'bytes' object")])
@pytest.mark.parametrize("use", ["get_tensor", "get_slice"])
def test_what_is_no_name(package, path, use, name, what):
    with pytest.raises(TypeError, match=f"argument 'name': {what} is not an instance of 'str'"):
        getattr(package.open(path), use)(name)


def test_a_name_as_a_keyword(package, path):
    file = package.open(path)
    assert file.get_tensor(name="scalar") == 3.5
    assert file.get_slice(name="scalar").get_dtype() == "F32"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bytearray(9), "'bytearray' object"),
        (memoryview(b"123456789"), "'memoryview' object"),
        ("{}", "'str' object"),
        (None, "'None'"),
        (3, "'int' object"),
    ],
)
def test_only_bytes_are_loaded(package, data, what):
    for load in (package.load, package.module.numpy.load):
        with pytest.raises(TypeError, match=f"argument 'bytes': {what} is not an instance of 'bytes'"):
            load(data)


def test_bytes_of_a_subclass(package, path):
    class Bytes(bytes):
        pass

    assert package.load(Bytes(path.read_bytes())).keys() == package.load_file(path).keys()
