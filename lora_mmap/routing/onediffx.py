"""``onediffx.lora`` for scripts that import it where OneDiffX is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

_CALLS = (
    "delete_adapters",
    "get_active_adapters",
    "load_and_fuse_lora",
    "load_lora_and_optionally_fuse",
    "set_and_fuse_adapters",
    "unfuse_lora",
)
# What each module of theirs has that we have too, under their names.
_NAMES: dict[str, dict[str, str]] = {
    "onediffx": {},
    "onediffx.lora": dict(zip(_CALLS, _CALLS, strict=True)),
    "onediffx.lora.lora": {
        **dict(zip(_CALLS, _CALLS, strict=True)),
        "clear_lora_cache": "clear_lora_cache",
        "OneDiffXWarning": "LoraWarning",
    },
}


class _Modules(MetaPathFinder, Loader):
    """The last finder to be asked, so that an installed OneDiffX is found first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _NAMES or (fullname != "onediffx" and not _is_ours(fullname.rpartition(".")[0])):
            return None
        is_package = fullname != "onediffx.lora.lora"
        return spec_from_loader(fullname, self, origin="lora_mmap", is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        import lora_mmap

        found = {theirs: getattr(lora_mmap, ours) for theirs, ours in _NAMES[module.__name__].items()}
        module.__dict__.update(found, __doc__=f"{module.__name__}, as far as lora_mmap takes its place.")
        module.__dict__["__all__"] = list(found)


_finder = _Modules()


def offer() -> None:
    """From now on ``import onediffx.lora`` finds our calls where there is no OneDiffX."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def withdraw() -> None:
    """Takes that back; who imported a call keeps it."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in _NAMES:
        if _is_ours(name):
            del sys.modules[name]


def _is_ours(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and spec.loader is _finder
