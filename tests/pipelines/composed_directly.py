"""What the weights of a pipeline must be: each component composed on its own, from the pristine weights, in one go."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tiny_pipelines import KINDS, parts_of, tiny_pipeline
from torch import nn

import lora_mmap

Weight = float | Mapping[str, float]  # a dict is by component, 1.0 where left out


def composed_parts(
    kind: str, adapters: Sequence[tuple[Path, Weight]], dtype: torch.dtype = torch.float32, only: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """A new pipeline's components with these files in them; of several components, ``only`` in those."""
    parts = parts_of(kind, tiny_pipeline(kind, dtype))
    for name, part in parts.items():
        if only and name not in only:
            continue
        entries = [
            (path, weight.get(name, 1.0) if isinstance(weight, Mapping) else weight) for path, weight in adapters
        ]
        lora_mmap.compose(part, entries, component="denoiser" if name == KINDS[kind].denoiser else name)
    return parts


def assert_bytes(parts: Mapping[str, nn.Module], expected: Mapping[str, nn.Module], sha256) -> None:
    assert {name: sha256(part) for name, part in parts.items()} == {
        name: sha256(part) for name, part in expected.items()
    }
