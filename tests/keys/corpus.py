"""The corpus of real key lists beside the repository (FORMATS, section 6): lists, models and what peers agree on.

It is not part of the repository: ``LORA_MMAP_CORPUS``, or ``../shared/corpus`` from the root. Tests skip without it.
"""

import gzip
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from stand_ins import stand_in
from torch import nn

ROOT = Path(os.environ.get("LORA_MMAP_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus")

# What lists call a family -> its models in ComfyUI's naming and in diffusers', where there are any.
_MODELS = {
    "flux1": ("flux.native", "flux_dev.diffusers"),
    "sd15": ("sd15.native", "sd15_unet.diffusers"),
    "sdxl": ("sdxl.native", "sdxl_unet.diffusers"),
    "sd3": ("sd3_medium.native", "sd3_medium.diffusers"),
    "sd35": ("sd35_medium.native", "sd35_medium.diffusers"),
    "flux2 klein4b": ("flux2_klein4b.native", "flux2_klein4b.diffusers"),
    "flux2 klein9b": (None, "flux2_klein9b.diffusers"),
    "krea2": (None, "krea2.diffusers"),
    "wan2.1 t2v_1_3b": ("wan21_t2v_1_3b.native", "wan21_t2v_1_3b.diffusers"),
    "wan2.1 1_3b": ("wan21_t2v_1_3b.native", "wan21_t2v_1_3b.diffusers"),
    "wan2.1 t2v_14b": ("wan21_t2v_14b.native", "wan21_t2v_14b.diffusers"),
    "wan2.1 i2v_14b": ("wan21_i2v_14b.native", "wan21_i2v_14b.diffusers"),
    **{
        name: (f"{name}.native", f"{name}.diffusers")
        for name in (
            "auraflow",
            "chroma",
            "hunyuan_video",
            "ltx_video",
            "lumina2",
            "pixart_sigma",
            "qwen_image",
            "z_image",
        )
    },
}


def names_in(folder: str) -> list[Any]:
    """The names of a folder's files; a parameter that skips where there is no corpus."""
    found = sorted(path.name.removesuffix(".json.gz") for path in (ROOT / folder).glob("*.json.gz"))
    return found or [pytest.param("", marks=pytest.mark.skip(reason=f"no corpus at {ROOT}"))]


def load(folder: str, name: str) -> dict[str, Any]:
    with gzip.open(ROOT / folder / f"{name}.json.gz") as file:
        content: dict[str, Any] = json.load(file)
    return content


def tensors_of(listed: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """A list's tensors as ``hollow_file`` takes them. Where the list has no shapes, small ones that fit nothing."""
    return {
        key: (dtype or "F16", tuple(shape) if shape is not None else () if key.endswith("alpha") else (1, 1))
        for key, (dtype, shape) in listed["tensors"].items()
    }


def has_shapes(listed: Mapping[str, Any]) -> bool:
    return all(shape is not None for _, shape in listed["tensors"].values())


def models_of(listed: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The models that a list was made for: (native, diffusers)."""
    family, name = listed["model_family"], listed["name"]
    wide = [key for key in _MODELS if key.split()[0] == family and key.split()[-1] in name]
    return _MODELS.get(family) or _MODELS.get(max(wide, key=len, default=""), (None, None))


@cache
def model(name: str) -> nn.Module:
    return stand_in({key: tuple(shape) for key, shape in load("models", name).items()})
