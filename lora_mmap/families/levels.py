"""Levels that a model may wrap around what files name, the other way round from prefixes: ``diffusion_model`` in
ComfyUI, ``model`` and ``text_model`` in transformers, the components of a pipeline held in one module."""

from __future__ import annotations

from collections.abc import Iterator

LEVELS = frozenset(
    {
        "model",
        "diffusion_model",
        "transformer",
        "unet",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "text_model",
        "language_model",
        "clip_l",
        "clip_g",
        "clip_h",
        "t5xxl",
    }
)
_FUSED_PARAMETER = "_weight"


def without_levels(name: str) -> Iterator[str]:
    """The further names under which files may know what a model calls ``name``."""
    names = [name]
    level, dot, rest = name.partition(".")
    while dot and level in LEVELS:
        names.append(rest)
        level, dot, rest = rest.partition(".")
    yield from names[1:]
    if name.endswith(_FUSED_PARAMETER):  # files name in_proj_weight of torch's attention like a module
        yield from (form.removesuffix(_FUSED_PARAMETER) for form in names)
