"""What else lies in sys.modules: the scan wakes nothing, breaks nothing and misses nothing."""

import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import types

import pytest
import safetensors.torch
from routed_loading import ORIGINALS

import lora_mmap

LOAD_FILE = ("safetensors.torch", "load_file")  # as a global name of this module it would be routed too


class Touchy:
    """Anything but its type is forbidden to look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"touched: {name}")


class Lazy(types.ModuleType):
    """As transformers' and diffusers' modules: an attribute is an import."""

    def __getattr__(self, name):
        raise AssertionError(f"woken by {name}")

    def __dir__(self):
        raise AssertionError("woken by dir()")


class Proud(types.ModuleType):
    """Takes no assignments and shows no names."""

    def __setattr__(self, name, value):
        raise AssertionError(f"set: {name}")

    @property
    def __dict__(self):
        raise AssertionError("looked into")


class Equal:
    """Equal to everything, hashable by nobody."""

    __hash__ = None

    def __eq__(self, other):
        raise AssertionError("compared")


def test_odd_entries_are_passed_by(monkeypatch):
    entries = {
        "odd.none": None,
        "odd.object": object(),
        "odd.touchy": Touchy(),
        "odd.cls": Equal,
        "odd.number": 3,
        "odd.empty": types.ModuleType.__new__(types.ModuleType),
        7: types.ModuleType("seven"),
    }
    for key, entry in entries.items():
        monkeypatch.setitem(sys.modules, key, entry)
    with lora_mmap.installed():
        assert all(sys.modules[key] is entry for key, entry in entries.items())


def test_modules_are_looked_into_without_waking_them(monkeypatch):
    proud, lazy = Proud("proud"), Lazy("lazy")
    get = vars(types.ModuleType)["__dict__"].__get__
    for module in (proud, lazy):
        get(module).update(touchy=Touchy(), equal=Equal(), load=ORIGINALS[LOAD_FILE])
        monkeypatch.setitem(sys.modules, get(module)["__name__"], module)
    with lora_mmap.installed():
        assert get(proud)["load"] is get(lazy)["load"] is safetensors.torch.load_file is not ORIGINALS[LOAD_FILE]
    assert get(proud)["load"] is get(lazy)["load"] is ORIGINALS[LOAD_FILE]


def test_a_lazily_imported_module_stays_unimported(monkeypatch, tmp_path):
    (tmp_path / "sleeper.py").write_text("raise AssertionError('imported')\n")
    spec = importlib.util.spec_from_file_location("sleeper", tmp_path / "sleeper.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sleeper", module)
    spec.loader.exec_module(module)
    with lora_mmap.installed():
        pass
    with pytest.raises(AssertionError, match="imported"):
        _ = module.anything


def test_names_and_modules_that_appear_during_the_scan(monkeypatch):
    busy = types.ModuleType("busy")
    monkeypatch.setitem(sys.modules, "busy", busy)
    over = threading.Event()

    def bind():
        number = 0
        while not over.is_set():
            number += 1
            setattr(busy, f"name{number % 5000}", ORIGINALS[LOAD_FILE] if number % 7 == 0 else number)
            sys.modules[f"busy.child{number % 50}"] = types.ModuleType("child")
            if number % 3 == 0:
                vars(busy).pop(f"name{number * 7 % 5000}", None)
                sys.modules.pop(f"busy.child{number * 3 % 50}", None)

    thread = threading.Thread(target=bind)
    thread.start()
    try:
        for _ in range(10):
            with lora_mmap.installed():
                pass
    finally:
        over.set()
        thread.join()
        for number in range(50):
            sys.modules.pop(f"busy.child{number}", None)
    with lora_mmap.installed():
        assert ORIGINALS[LOAD_FILE] not in vars(busy).values()
    assert safetensors.torch.load_file not in [v for v in vars(busy).values() if v is not ORIGINALS[LOAD_FILE]]


def test_the_module_that_is_run_has_names_too(tmp_path):
    run(
        """
        from safetensors.torch import load_file as safe_load_file
        import lora_mmap
        original = safe_load_file
        originals = [original]
        assert original.__globals__["load_file"] is original, "patched at import"
        del original
        with lora_mmap.installed():
            assert safe_load_file is not originals[0]
        assert safe_load_file is originals[0]
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_inherits_and_can_switch(path):
    """Also when another thread of the parent, which the child does not have, was about to switch."""
    run(
        """
        import os, sys, threading, warnings
        import safetensors.torch
        import lora_mmap
        from lora_mmap.routing import installation

        original = [safetensors.torch.load_file]
        lora_mmap.install()
        held, over = threading.Event(), threading.Event()

        def hold():
            with installation._lock.native:
                held.set()
                over.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        warnings.simplefilter("ignore")  # threads and fork: that is the point
        child = os.fork()
        if child == 0:
            assert lora_mmap.installed()
            assert len(safetensors.torch.load_file(PATH)) == 2
            lora_mmap.uninstall()
            os._exit(0 if [safetensors.torch.load_file] == original else 1)
        _, status = os.waitpid(child, 0)
        over.set()
        thread.join()
        assert status == 0
        assert lora_mmap.installed()
        assert lora_mmap.uninstall()
        """.replace("PATH", repr(str(path)))
    )


def test_reloaded_and_imported_twice(path):
    """Whatever copy of this package is asked, the originals come back, and other frameworks find safetensors' own."""
    run(
        """
        import importlib, sys
        import safetensors, safetensors.torch
        originals = [safetensors.safe_open, safetensors.torch.load_file]
        import lora_mmap
        from lora_mmap.loading import handle
        from lora_mmap.routing import installation

        def back():
            return [safetensors.safe_open, safetensors.torch.load_file] == originals

        lora_mmap.install()
        importlib.reload(handle)
        assert handle._THEIR_SAFE_OPEN is originals[0]
        assert type(safetensors.safe_open(PATH, framework="flax")) is originals[0]
        assert len(safetensors.torch.load_file(PATH)) == 2
        importlib.reload(installation)
        assert len(safetensors.torch.load_file(PATH)) == 2
        installation.install()
        assert not back()
        installation.uninstall()
        assert back()

        first = lora_mmap
        first.install()
        for name in [name for name in sys.modules if name.partition(".")[0] == "lora_mmap" and name != "lora_mmap._C"]:
            del sys.modules[name]
        import lora_mmap as second
        assert second is not first
        assert sys.modules["lora_mmap.loading.handle"]._THEIR_SAFE_OPEN is originals[0]
        second.install()
        assert type(safetensors.safe_open(PATH, framework="pt")).__mro__[1] is second.safe_open
        assert type(safetensors.safe_open(PATH, framework="flax")) is originals[0]
        second.uninstall()
        assert back()
        first.uninstall()
        assert back()
        """.replace("PATH", repr(str(path)))
    )


def run(script):
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
