"""Where a pipeline's adapters come from, with the arguments that diffusers has for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..adapter_sources import AdapterSource
from ..errors import ArgumentError
from . import hub

# What diffusers' loaders take beside these, and what has no meaning here: nothing is unpickled but weights, tensors
# are never loaded onto a device before they are needed, and keys are not converted with the help of a configuration.
_IGNORED = frozenset(
    {"device", "unet_config", "use_safetensors", "allow_pickle", "user_agent", "low_cpu_mem_usage", "proxies"}
    | {"return_lora_metadata", "torch_dtype", "variant"}
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def locate_source(function: str, source: object, options: dict[str, Any]) -> AdapterSource:
    """The file or dict that is meant. ``options`` are ``weight_name`` and ``subfolder`` for folders and hubs, and
    ``revision``, ``token``, ``local_files_only``, ``cache_dir``, ``force_download`` for the hub; others that diffusers
    has are accepted. Raises ArgumentError for those that nobody knows, FileNotFoundError where there is no such thing.
    """
    unknown = options.keys() - _IGNORED - {"weight_name", "subfolder", *hub.OPTIONS}
    if unknown:
        raise ArgumentError(f"[{function}] there is no argument {min(unknown)!r}")
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            f"[{function}] the adapter is a {type(source).__name__}, expected a path, the id of a repository or a dict "
            "of tensors"
        )
    path = Path(source)
    weight_name, subfolder = options.get("weight_name"), options.get("subfolder")
    if path.is_dir():
        return _in_folder(function, path / (subfolder or ""), weight_name)
    if path.exists() or not isinstance(source, str) or not _HUB_ID.fullmatch(source) or _names_a_file(path):
        return path
    wanted = {name: options[name] for name in hub.OPTIONS if options.get(name) is not None}
    return hub.fetch(function, source, weight_name, subfolder, wanted)


def _names_a_file(path: Path) -> bool:
    return path.suffix.lower() in {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}


def _in_folder(function: str, folder: Path, weight_name: str | None) -> Path:
    if weight_name is None:
        return folder
    path = folder / weight_name
    if not path.is_file():
        found = sorted(file.name for file in folder.glob("*") if _names_a_file(file))
        raise FileNotFoundError(
            f"[{function}] {folder} has no file '{weight_name}' ({', '.join(found) or 'no weights'}), expected one"
        )
    return path
