"""Where adapters come from: files, folders as PEFT and diffusers save them, pickles, dicts of tensors."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .adapter import Adapter
from .adapter_metadata import CONFIG_NAME, config_beside
from .errors import AdapterError
from .families import key_tables
from .tensor_source import FileTensors, MemoryTensors

AdapterSource = str | os.PathLike[str] | Mapping[str, torch.Tensor]

_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
FOLDER_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")


def open_adapter(source: AdapterSource) -> Adapter:
    """Opens a LoRA: reads and parses its header, classifies its keys. Reads no tensor data.

    ``source`` is a ``.safetensors`` file, a folder as PEFT or diffusers save it, a ``.pt``, ``.pth``, ``.bin`` or
    ``.ckpt`` file (unpickled with ``weights_only=True``), or a flat dict of tensors (copied at their own dtype).

    Raises FileNotFoundError, PermissionError, IsADirectoryError and other OSErrors; HeaderError where the file is no
    valid safetensors file; AdapterError where it holds something else than a flat dict of tensors.
    """
    if isinstance(source, Mapping):
        return Adapter(MemoryTensors(source, "dict", "dict"), f"dict of {len(source)} tensors", None)
    path = locate(source)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return Adapter(MemoryTensors(_unpickle(path), str(path), "pickle", path.stat().st_size), str(path), path)
    return Adapter(FileTensors(str(path)), str(path), path)


def locate(source: str | os.PathLike[str]) -> Path:
    """The file that ``source`` names, inside a folder too."""
    try:
        path = Path(os.fspath(source))
    except TypeError:
        raise AdapterError(
            f"[open_adapter] expected a path or a dict of tensors, got {type(source).__name__}"
        ) from None
    return _inside_folder(path) if path.is_dir() else path


def identity(source: AdapterSource) -> object:
    """Equal for sources that are one adapter: the same dict, or one file (links too) with the same configuration."""
    if isinstance(source, Mapping):
        return id(source)
    path = locate(source)
    config = config_beside(path)
    return _file_identity(path), _file_identity(config) if config else None


def cache_key(source: AdapterSource) -> object | None:
    """Equal for sources that would be opened to the same adapter; another once a file was replaced or written to, or
    key tables were added. None for what is no safetensors file. Raises FileNotFoundError and other OSErrors."""
    if isinstance(source, Mapping):
        return None
    path = locate(source)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        return None
    config = config_beside(path)
    return key_tables(), _state(path), _state(config) if config else None


def _state(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _file_identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return str(path)  # opening it will say what is wrong
    return status.st_dev, status.st_ino


def choose(names: Iterable[str]) -> str | None:
    """The adapter among the files of one folder: as PEFT or diffusers name it, or the only safetensors file."""
    here = set(names)
    files = [name for name in here if name.endswith(".safetensors")]
    named = next((name for name in FOLDER_NAMES if name in here), None)
    return named or (files[0] if len(files) == 1 else None)


def _inside_folder(folder: Path) -> Path:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    chosen = choose(names)
    if chosen is not None:
        return folder / chosen
    files = [name for name in names if name.endswith(".safetensors")]
    found = "several: " + ", ".join(files) if files else "none"
    raise IsADirectoryError(
        f"[open_adapter] {folder} is a folder: expected {' or '.join(FOLDER_NAMES)} (with {CONFIG_NAME}) or one "
        f".safetensors file in it, found {found}"
    )


def _unpickle(path: Path) -> Mapping[str, Any]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AdapterError(f"[open_adapter] {path}: torch.load(weights_only=True) refused it: {reason}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise AdapterError(f"[open_adapter] {path}: holds a {type(loaded).__name__}, expected a dict of tensors")
    return loaded
