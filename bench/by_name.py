"""Adapters under names on one denoiser, as pipelines have them: what a contender has to be able to do, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import nn

import lora_mmap

from .results import OURS


class ByName(Protocol):
    """One way of keeping adapters under names. Files have the keys of :func:`.adapters.write_diffusers`."""

    name: str

    def load(self, path: Path, name: str, fuse: bool) -> object:
        """Loads a file under a name; with ``fuse`` it goes into the weights at strength 1, beside what is there.
        Without, what is there may be taken out."""

    def set_and_fuse(self, strengths: Mapping[str, float]) -> object:
        """These adapters, and no others, are in the weights."""

    def unfuse(self) -> object:
        """Nothing is in the weights; everything stays loaded."""

    def forget(self, name: str) -> None:
        """Lets go of an adapter that is not in the weights."""


class Pipeline:
    """As much of a diffusers pipeline as adapters are concerned with."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet


class LoraMmap:
    """lora_mmap's calls on a pipeline."""

    name = OURS

    def __init__(self, unet: nn.Module, use_cache: bool = False) -> None:
        self._pipeline = Pipeline(unet)
        self._use_cache = use_cache

    def load(self, path: Path, name: str, fuse: bool) -> lora_mmap.PipelineReport:
        return lora_mmap.load_lora_and_optionally_fuse(self._pipeline, path, name, fuse=fuse, use_cache=self._use_cache)

    def set_and_fuse(self, strengths: Mapping[str, float]) -> lora_mmap.PipelineReport:
        return lora_mmap.set_and_fuse_adapters(self._pipeline, list(strengths), list(strengths.values()))

    def unfuse(self) -> bool:
        return lora_mmap.unfuse_lora(self._pipeline)

    def forget(self, name: str) -> None:
        lora_mmap.delete_adapters(self._pipeline, name)
