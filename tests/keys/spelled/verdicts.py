"""What a report says of each key, in the words of the tests: (module, rows, permuted) of every target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import lora_mmap

from . import hollow_file
from .trainers import Tensors


class Target(NamedTuple):
    """Where factors go: ``rows`` of the module's weight, None for all of them, and whether in another order."""

    module: str
    rows: tuple[int, int] | None = None
    permuted: bool = False


def verdicts(folder: Path, model: nn.Module, tensors: Tensors, **options: object) -> dict[str, Any]:
    """The report's ``keys`` for a file of these tensors."""
    path = hollow_file.write(folder / "adapter.safetensors", tensors)
    keys: dict[str, Any] = lora_mmap.check(model, path, **options).to_dict()["keys"]
    assert keys.keys() == tensors.keys()
    return keys


def targets(verdict: Mapping[str, Any]) -> set[Target]:
    return {
        Target(found["module"], tuple(found["rows"]) if found["rows"] else None, found["layout"] is not None)
        for found in verdict["targets"]
    }


def require_applied(keys: Mapping[str, Any], meant: Mapping[str, set[Target]]) -> None:
    """Every key of ``meant`` is applied, to exactly these targets."""
    wrong = [
        f"{key}: {keys[key]['outcome']} to {sorted(targets(keys[key]), key=str)}, expected {sorted(where, key=str)}"
        + (f" ({keys[key]['reason']})" if keys[key]["reason"] else "")
        for key, where in meant.items()
        if keys[key]["outcome"] != "applied" or targets(keys[key]) != where
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(meant)} keys, among them", *wrong[:: max(1, len(wrong) // 8)]])
