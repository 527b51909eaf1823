"""The real diffusers + PEFT, called as their documentation does: load_lora_adapter, fuse_lora and the way back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from . import missing

NAME = "diffusers+peft"


def why_not() -> str | None:
    return missing("diffusers", "peft", "accelerate")


class DiffusersPeft:
    """One diffusers model. Stages are in seconds."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model

    def load_and_fuse(self, path: Path) -> dict[str, float]:
        begin = time.perf_counter()
        self._model.load_lora_adapter(
            str(path.parent), prefix="unet", weight_name=path.name, adapter_name="bench", local_files_only=True
        )
        loaded = time.perf_counter()
        self._model.fuse_lora()
        return {"load": loaded - begin, "fuse": time.perf_counter() - loaded}

    def replace(self, path: Path) -> dict[str, float]:
        """Another adapter in place of the one that is fused."""
        begin = time.perf_counter()
        self.unfuse_and_unload()
        return {"unfuse + unload": time.perf_counter() - begin, **self.load_and_fuse(path)}

    def set_strength(self, strength: float) -> None:
        self._model.unfuse_lora()
        self._model.set_adapters(["bench"], weights=[strength])
        self._model.fuse_lora()

    def unfuse_and_unload(self) -> None:
        self._model.unfuse_lora()
        self._model.unload_lora()

    def unload(self) -> None:
        """Removes the adapter and leaves the weights fused."""
        self._model.unload_lora()


class DiffusersPeftByName:
    """Several adapters under names on one diffusers model, which stay loaded until they are forgotten."""

    name = NAME

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._loaded: list[str] = []
        self._fused: list[str] = []

    def load(self, path: Path, name: str, fuse: bool) -> None:
        """PEFT takes out what is fused whenever something is loaded."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute|Adapter cannot be set when")
            self._model.load_lora_adapter(
                str(path.parent),
                prefix="unet",
                weight_name=path.name,
                adapter_name=name,
                local_files_only=True,
                low_cpu_mem_usage=True,  # as diffusers' pipelines
            )
        self._loaded.append(name)
        self._fused = [*self._fused, name] if fuse else []
        if fuse:
            self._model.fuse_lora(adapter_names=self._fused)

    def set_and_fuse(self, strengths: Mapping[str, float]) -> None:
        self.unfuse()
        self._fused = list(strengths)
        self._model.set_adapters(self._fused, weights=list(strengths.values()))
        self._model.fuse_lora(adapter_names=self._fused)

    def unfuse(self) -> None:
        if self._fused:
            self._model.unfuse_lora()
        self._fused = []

    def forget(self, name: str) -> None:
        """The last one takes PEFT's layers with it."""
        self._loaded.remove(name)
        if self._loaded:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted")
                self._model.delete_adapters(name)
        else:
            self._model.unload_lora()
