"""The real diffusers + PEFT, called as their documentation does: load_lora_adapter, fuse_lora and the way back."""

from __future__ import annotations

import time
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
