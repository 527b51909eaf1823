"""Both packages behind one fixture: what a test of loading says must hold for safetensors and for us alike."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import safetensors.numpy
import safetensors.torch
import torch

import lora_mmap

# (package, backend, what auto is made to take)
PACKAGES = [(safetensors, "mmap", None), (safetensors, "pread", None), (lora_mmap, "mmap", None)]
PACKAGES += [(lora_mmap, "pread", None), (lora_mmap, "auto", "mmap"), (lora_mmap, "auto", "pread")]


@dataclass(frozen=True)
class Package:
    """A package and the backend that its loaders are called with."""

    module: ModuleType
    backend: str
    mapped: bool  # whether tensors are views of a mapping

    @property
    def ours(self) -> bool:
        return self.module is lora_mmap

    @property
    def error(self) -> type[Exception]:
        return safetensors.SafetensorError

    def open(self, filename: Any, framework: str = "pt", **how: Any) -> Any:
        return self.module.safe_open(filename, framework, **{"backend": self.backend} | how)

    def load_file(self, filename: Any, **how: Any) -> dict[str, torch.Tensor]:
        return self.module.torch.load_file(filename, **{"backend": self.backend} | how)

    def load_arrays(self, filename: Any) -> dict[str, Any]:
        return self.module.numpy.load_file(filename, backend=self.backend)

    def load(self, data: bytes) -> dict[str, torch.Tensor]:
        return self.module.torch.load(data)

    def load_model(self, model: torch.nn.Module, filename: Any, **how: Any) -> tuple[Any, Any]:
        return self.module.torch.load_model(model, filename, **{"backend": self.backend} | how)


@pytest.fixture(params=PACKAGES, ids=lambda param: "-".join(filter(None, (param[0].__name__, *param[1:]))))
def package(request, monkeypatch):
    module, backend, taken = request.param
    monkeypatch.setenv("LORA_MMAP_BACKEND", taken or "auto")
    return Package(module, backend, (taken or backend) == "mmap")


@pytest.fixture
def tensors():
    """A matrix, a vector, a scalar, two empties; safetensors writes the widest types first."""
    return {
        "matrix": torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7,
        "vector": torch.arange(-3, 4, dtype=torch.int16),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "half": torch.tensor([[0.5, -1.25]], dtype=torch.bfloat16),
    }


@pytest.fixture
def path(tmp_path, tensors):
    """``tensors`` in a file, with metadata."""
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path, {"format": "pt", "title": "é 😀"})
    return path


@pytest.fixture
def array_path(tmp_path):
    """A file of types that numpy has."""
    path = tmp_path / "arrays.safetensors"
    safetensors.torch.save_file(
        {
            "matrix": torch.arange(24.0).reshape(4, 6),
            "vector": torch.arange(7, dtype=torch.int16),
            "e": torch.empty(0, 2),
        },
        path,
    )
    return path
