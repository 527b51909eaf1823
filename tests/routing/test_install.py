"""Which names are routed, what a routed call does, and that undoing it leaves no trace."""

import importlib
import inspect
import pickle
import sys
import types

import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from routed_loading import (
    NAMES,
    ORIGINALS,
    assert_same_tensors,
    headers_parsed_by,
    holders,
    load_both_ways,
)

import lora_mmap
from lora_mmap.loading import handle


def now(module, name):
    return vars(sys.modules[module])[name]


@pytest.fixture
def module(monkeypatch):
    """Makes a module that others could have imported, from {name: value}."""

    def make(name, **names):
        made = types.ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


@pytest.mark.parametrize(("where", "name"), NAMES)
def test_name_is_routed_and_given_back(where, name):
    original = ORIGINALS[where, name]
    assert now(where, name) is original
    lora_mmap.install()
    routed = now(where, name)
    assert routed is not original
    assert routed.__wrapped__ is original
    assert routed is not getattr(lora_mmap, name, None)
    assert routed is not getattr(lora_mmap.torch, name, None)
    assert routed is not getattr(lora_mmap.numpy, name, None)
    lora_mmap.uninstall()
    assert now(where, name) is original


def test_everybody_elses_names_follow(module):
    ours = module(
        "somebody",
        safe_load_file=safetensors.torch.load_file,
        _load=safetensors.torch.load,
        to_model=safetensors.torch.load_model,
        np_load=safetensors.numpy.load_file,
        opener=safetensors.safe_open,
        save=safetensors.torch.save_file,
        other=len,
    )
    before = dict(vars(ours))
    held = holders()
    lora_mmap.install()
    assert ours.safe_load_file is safetensors.torch.load_file
    assert ours._load is safetensors.torch.load
    assert ours.to_model is safetensors.torch.load_model
    assert ours.np_load is safetensors.numpy.load_file
    assert ours.opener is safetensors.safe_open
    assert ours.save is before["save"]
    assert ours.other is len
    # Nobody is left, but for the home of the class, this test's own copies, and us.
    left = {key for key, _ in holders()}
    assert all(key.startswith(("lora_mmap.", "safetensors._safetensors_rust")) for key in left), left
    lora_mmap.uninstall()
    assert vars(ours) == before
    assert holders() == held


def test_our_public_names_stay_ours(module):
    user = module(
        "user",
        safe_open=lora_mmap.safe_open,
        load_file=lora_mmap.torch.load_file,
        load=lora_mmap.torch.load,
        load_model=lora_mmap.torch.load_model,
        np_load_file=lora_mmap.numpy.load_file,
        np_load=lora_mmap.numpy.load,
    )
    before = dict(vars(user))
    own = {key: dict(vars(sys.modules[key])) for key in list(sys.modules) if key.startswith("lora_mmap.loading")}
    lora_mmap.install()
    assert vars(user) == before
    assert handle._THEIR_SAFE_OPEN is ORIGINALS["safetensors", "safe_open"]
    lora_mmap.uninstall()
    assert vars(user) == before
    assert all(vars(sys.modules[key]) == names for key, names in own.items())


def test_modules_imported_while_installed(tmp_path, monkeypatch):
    (tmp_path / "imported_meanwhile.py").write_text(
        "import safetensors\n"
        "from safetensors import safe_open\n"
        "from safetensors.torch import load_file as safe_load_file\n"
        "from safetensors.numpy import load as np_load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imported_meanwhile", raising=False)
    with lora_mmap.installed():
        imported = importlib.import_module("imported_meanwhile")
        assert imported.safe_open is safetensors.safe_open is not ORIGINALS["safetensors", "safe_open"]
        assert imported.safe_load_file is safetensors.torch.load_file
    assert imported.safe_open is ORIGINALS["safetensors", "safe_open"]
    assert imported.safe_load_file is ORIGINALS["safetensors.torch", "load_file"]
    assert imported.np_load is ORIGINALS["safetensors.numpy", "load"]


def test_torch_calls_load_the_same_through_us(path):
    for load in (
        lambda: safetensors.torch.load_file(path),
        lambda: safetensors.torch.load_file(str(path), "cpu"),
        lambda: safetensors.torch.load_file(filename=path, device="cpu", backend="pread"),
        lambda: {k: f.get_tensor(k) for f in [safetensors.safe_open(path, framework="pt")] for k in f.keys()},  # noqa: SIM118
        lambda: {k: f.get_slice(k)[...] for f in [safetensors.safe_open(path, "torch", "cpu")] for k in f.keys()},  # noqa: SIM118
    ):
        theirs, ours = load_both_ways(load)
        assert_same_tensors(ours, theirs)


def test_numpy_calls_load_the_same_through_us(path):
    for load in (
        lambda: safetensors.numpy.load_file(path),
        lambda: safetensors.numpy.load_file(filename=str(path), backend="mmap"),
        lambda: safetensors.safe_open(path, framework="np").get_tensors(),
    ):
        theirs, ours = load_both_ways(load)
        assert_same_tensors(ours, theirs)


@pytest.mark.parametrize("library", [safetensors.torch, safetensors.numpy])
def test_bytes_load_the_same_through_us(path, library):
    data = path.read_bytes()
    theirs, ours = load_both_ways(lambda: library.load(data))
    assert {name: value.tolist() for name, value in ours.items()} == {k: v.tolist() for k, v in theirs.items()}


def test_load_model_through_us(path):
    def load():
        model = torch.nn.ParameterDict({"weight": torch.zeros(23, 37), "more": torch.zeros(1)})
        told = safetensors.torch.load_model(model, path, strict=False)
        return {"told": told, **model.state_dict()}

    theirs, ours = load_both_ways(load)
    assert ours.pop("told") == theirs.pop("told") == ({"more"}, ["bias"])
    assert_same_tensors(ours, theirs)


def test_backend_is_auto_unless_named(path, monkeypatch):
    asked = []

    class Recorded(handle.OpenedFile):
        def __init__(self, path, backend):
            asked.append(backend)
            super().__init__(path, backend)

    monkeypatch.setattr(handle, "OpenedFile", Recorded)
    with lora_mmap.installed():
        safetensors.torch.load_file(path)
        safetensors.numpy.load_file(path)
        safetensors.safe_open(path, framework="pt")
        safetensors.torch.load_model(torch.nn.ParameterDict(), path, strict=False)
        assert asked == ["auto"] * 4
        asked.clear()
        for backend in ("mmap", "pread"):
            safetensors.torch.load_file(path, backend=backend)
            safetensors.numpy.load_file(path, backend=backend)
            safetensors.safe_open(path, framework="np", backend=backend)
            safetensors.torch.load_model(torch.nn.ParameterDict(), path, strict=False, backend=backend)
            assert asked == [backend] * 4
            asked.clear()


@pytest.mark.parametrize("framework", ["tf", "tensorflow", "jax", "flax", "mlx"])
def test_other_frameworks_go_on_to_safetensors(path, framework):
    with lora_mmap.installed():
        opened, parsed = headers_parsed_by(lambda: safetensors.safe_open(path, framework=framework))
        assert isinstance(opened, safetensors.safe_open)
    assert type(opened) is ORIGINALS["safetensors", "safe_open"]
    assert opened.keys() == ["bias", "weight"]
    assert parsed == 0


def test_what_safetensors_refuses_is_refused(path):
    with lora_mmap.installed():
        with pytest.raises(safetensors.SafetensorError, match="framework nothing is invalid"):
            safetensors.safe_open(path, framework="nothing")
        with pytest.raises(FileNotFoundError):
            safetensors.torch.load_file(path.with_name("missing"))
        with pytest.raises(TypeError, match="load_file"):
            safetensors.torch.load_file()
        with pytest.raises(TypeError):
            safetensors.safe_open(path)


def test_isinstance(path):
    original = ORIGINALS["safetensors", "safe_open"]
    opened_before = safetensors.safe_open(path, framework="pt")
    with lora_mmap.installed():
        assert isinstance(safetensors.safe_open, type)
        opened = safetensors.safe_open(path, framework="pt")
        assert type(opened) is safetensors.safe_open
        for instance in (opened, opened_before, lora_mmap.safe_open(path, framework="pt")):
            assert isinstance(instance, safetensors.safe_open)
        assert not isinstance(path, safetensors.safe_open)

        class Derived(safetensors.safe_open):
            """A subclass is a class of its own."""

        assert isinstance(Derived(path, framework="pt"), safetensors.safe_open)
        assert not isinstance(opened, Derived)
        assert not isinstance(opened_before, Derived)
    assert safetensors.safe_open is original
    assert isinstance(opened, lora_mmap.safe_open)
    assert opened.keys() == opened_before.keys()  # what was opened stays open


@pytest.mark.parametrize(("where", "name"), NAMES)
def test_looks_like_the_original(where, name):
    original = ORIGINALS[where, name]
    with lora_mmap.installed():
        routed = now(where, name)
        assert inspect.signature(routed) == inspect.signature(original)
        assert inspect.getfullargspec(routed) == inspect.getfullargspec(original)
        assert inspect.getdoc(routed) == inspect.getdoc(original)
        assert (routed.__name__, routed.__qualname__) == (original.__name__, original.__qualname__)
        assert isinstance(routed, type) is isinstance(original, type)
        assert pickle.loads(pickle.dumps(routed)) is routed


def test_kept_elsewhere_it_is_the_original_again(path):
    with lora_mmap.installed():
        load_file, safe_open = safetensors.torch.load_file, safetensors.safe_open
        assert headers_parsed_by(lambda: load_file(path))[1] == 1
    tensors, parsed = headers_parsed_by(lambda: load_file(path, backend="pread"))
    assert parsed == 0
    assert_same_tensors(tensors, safetensors.torch.load_file(path))
    opened, parsed = headers_parsed_by(lambda: safe_open(path, framework="pt"))
    assert parsed == 0
    assert type(opened) is ORIGINALS["safetensors", "safe_open"]
    assert isinstance(opened, safe_open)
    with lora_mmap.installed():
        assert safetensors.torch.load_file is load_file  # the same object every time
        assert headers_parsed_by(lambda: load_file(path))[1] == 1


def test_originals_captured_before_still_read_through_us_where_they_look_names_up(path):
    load_file = ORIGINALS["safetensors.torch", "load_file"]  # its own safe_open is a global name
    with lora_mmap.installed():
        assert headers_parsed_by(lambda: load_file(path))[1] == 1
