"""Which safetensors files a base checkpoint consists of, as diffusers and transformers lay it out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import ArgumentError

# In the order of preference; a variant has its name before the last dot.
_FILE_NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_INDEX_NAMES = tuple(f"{name}.index.json" for name in _FILE_NAMES)
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl"})


class CheckpointFiles(NamedTuple):
    """The files of one checkpoint. ``shard_of``: the number of the file with the tensor of each name, as an index says
    it; None for a file alone."""

    paths: list[Path]
    shard_of: dict[str, int] | None = None


def checkpoint_files(source: str | os.PathLike[str]) -> CheckpointFiles:
    """The files that ``source`` names: a safetensors file, the index of a sharded checkpoint, or a folder with one of
    them. Reads nothing but an index.

    A folder's plain index comes first, then its plain file, then those of a variant such as fp16, then whatever
    single safetensors file it has. Raises FileNotFoundError, and ArgumentError where several or none could be meant.
    """
    try:
        path = Path(os.fspath(source))
    except TypeError:
        raise ArgumentError(
            f"[compose] base is a {type(source).__name__}, expected the path of a safetensors file or of a folder"
        ) from None
    if path.is_dir():
        path = _inside(path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise ArgumentError(
            f"[compose] base {path} is a pickle, expected safetensors: where a pickle has a tensor only running it "
            "tells, so no part of it can be read or checked by itself"
        )
    if not path.exists():
        raise FileNotFoundError(f"[compose] base {path} does not exist")
    return _indexed(path) if path.suffix.lower() == ".json" else CheckpointFiles([path])


def _inside(folder: Path) -> Path:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    for wanted in (*_INDEX_NAMES, *_FILE_NAMES):
        if wanted in names:
            return folder / wanted
    whole = [name for name in names if name.endswith(".safetensors")]
    indices = [name for name in names if ".safetensors.index." in name and name.endswith(".json")]
    variants = [name for name in whole if _is_variant(name)]
    for found in (indices, variants, whole):
        if len(found) == 1:
            return folder / found[0]
        if found:
            raise ArgumentError(f"[compose] base {folder} has {_listed(found)}: expected one, name the file itself")
    raise ArgumentError(f"[compose] base {folder} has no safetensors file: {_why_none(names)}")


def _is_variant(name: str) -> bool:
    """``model.fp16.safetensors``, but no shard of it."""
    stems = tuple(wanted.removesuffix("safetensors") for wanted in _FILE_NAMES)
    return name.startswith(stems) and "-of-" not in name


def _why_none(names: Sequence[str]) -> str:
    if "model_index.json" in names:
        return "it is a pipeline's, expected the folder of one component, such as its unet or transformer"
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLE_SUFFIXES]
    if pickles:
        return f"{_listed(pickles)} are pickles, which cannot serve as a base"
    return f"expected {' or '.join(_FILE_NAMES)}, or an index of shards"


def _indexed(index: Path) -> CheckpointFiles:
    """Names of shards are those of files in the index's own folder."""
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        entries = [(str(name), str(file)) for name, file in weight_map.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(
            f"[compose] base {index} is no index of shards, expected a JSON object with a 'weight_map': {error!r}"
        ) from None
    shards = {file: number for number, file in enumerate(dict.fromkeys(file for _, file in entries))}
    for file in shards:
        if os.path.basename(file) != file or file in ("", ".", ".."):
            raise ArgumentError(f"[compose] base {index} names the shard {file!r}, expected a file beside it")
        if not (index.parent / file).exists():
            raise FileNotFoundError(f"[compose] base {index} names the shard {file}, which is not there")
    return CheckpointFiles([index.parent / file for file in shards], {name: shards[file] for name, file in entries})


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
