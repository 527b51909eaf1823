"""What a family table is made of. A family is data: readable by somebody who knows the model and not our code.

A *naming* is one consistent way to name a model's weights: ``native`` (as published and as ComfyUI has it),
``diffusers``, ``nunchaku``, ... A table says, weight by weight, what each naming calls it; every rule, in either
direction between any two namings, follows from that.

Paths are patterns (``csrc/keys/pattern.h``): ``{i}`` stands for a block index, ``{m:to_q|to_k}`` for one of the listed
words, ``{i*3+j+1}`` for an index that counts two levels through (``j`` below three), ``.`` also matches the ``_`` of
trainers that flatten module paths. Paths of one weight capture the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Axis = Literal["rows", "cols"]


@dataclass(frozen=True)
class Naming:
    """A naming that needs more said about it than its name.

    ``beside`` is a module that only models of this naming have, with its indices (``transformer_blocks.0.qkv_proj``);
    where a model has it, this naming's paths win over equal paths of other namings. ``in_models`` is False for what
    only adapter files are written in; where nothing but the PEFT adapter name in their keys tells these, ``infix`` is
    that name (``default`` in ``.lora_A.default.weight``), and with it this naming's paths win.
    """

    name: str
    beside: str = ""
    in_models: bool = True
    infix: str = ""


@dataclass(frozen=True)
class Layout:
    """Which pieces of a weight a path holds, in order. ``interleaved``: not one after the other, but so many rows of
    each in turn; 0 otherwise."""

    pieces: tuple[str, ...]
    interleaved: int = 0


@dataclass(frozen=True)
class Weights:
    """One matrix, in pieces of relative ``sizes`` along an axis, and which pieces lie under which name.

    Rows are output features, columns input features (for convolutions, output channels and flattened input).
    ``square``: a piece of size 1 has as many rows as the matrix has columns; tells apart what has the same names.
    """

    sizes: Mapping[str, int]
    names: Mapping[str, Mapping[str, Layout]]  # naming -> path -> layout
    axis: Axis = "rows"
    square: bool = False


_WHOLE = "all"


def same(**paths: str | Iterable[str]) -> Weights:
    """One weight under its names: ``same(native="img_in", diffusers="x_embedder")``; several paths in a tuple."""
    whole = Layout((_WHOLE,))
    return Weights(
        {_WHOLE: 1},
        {
            naming: dict.fromkeys((text,) if isinstance(text, str) else tuple(text), whole)
            for naming, text in paths.items()
        },
    )


def rows(pieces: str, *, square: bool = False, **namings: Mapping[str, str]) -> Weights:
    """A matrix whose output features come in pieces: ``rows("q k v mlp:4", native={"linear1": "q k v mlp"}, ...)``.

    ``pieces`` lists them with their relative sizes. A path holds the pieces it lists, in its own order; ``"a b
    interleaved"`` takes them row by row in turn, ``"a b interleaved by 128"`` 128 rows of each.
    """
    return _cut(pieces, "rows", square, namings)


def cols(pieces: str, **namings: Mapping[str, str]) -> Weights:
    """A matrix whose input features come in pieces: ``cols("attn mlp:4", native={"linear2": "attn mlp"}, ...)``."""
    return _cut(pieces, "cols", False, namings)


def _cut(pieces: str, axis: Axis, square: bool, namings: Mapping[str, Mapping[str, str]]) -> Weights:
    sizes = {}
    for word in pieces.split():
        name, _, size = word.partition(":")
        sizes[name] = int(size or 1)
    return Weights(
        sizes,
        {naming: {path: _layout(text) for path, text in paths.items()} for naming, paths in namings.items()},
        axis,
        square,
    )


def _layout(text: str) -> Layout:
    pieces, interleaved, rows_in_turn = text.partition(" interleaved")
    if not interleaved:
        return Layout(tuple(pieces.split()))
    return Layout(tuple(pieces.split()), int(rows_in_turn.removeprefix(" by ") or 1))


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder of a model's pipeline: the table that knows its names, and what it is below ``text_encoders`` in
    ComfyUI's keys."""

    family: str
    comfyui: str


@dataclass(frozen=True)
class Family:
    """The names of one model family.

    ``widths`` tell apart families of equal names: columns of the weight at a path. ``components`` are the pipeline
    components that the weights belong to. ``duplicates`` are pairs of namings: where one file carries both, what the
    second one names again is left out. ``base_models`` are parts of what trainers call the model in a file's metadata.
    ``once``: no pipeline has two of this text encoder, so its number in a file does not matter.

    For writing (:func:`lora_mmap.families.writing.spell`): ``written`` says which naming a dialect writes, several in
    order of preference, ``""`` for the names that a model has itself (``{"kohya": "tencent_split tencent"}``); unsaid,
    kohya and ComfyUI write ``native`` names, diffusers and PEFT ``diffusers`` ones. ``is_unet``: diffusers' pipelines
    have it as ``unet``, not as ``transformer``. ``text_encoders`` are its pipeline's, by component.
    """

    name: str
    title: str
    weights: tuple[Weights, ...]
    namings: tuple[Naming, ...] = ()
    written: Mapping[str, str] | None = None
    widths: Mapping[str, tuple[int, ...]] | None = None
    components: tuple[str, ...] = ("denoiser",)
    duplicates: tuple[tuple[str, str], ...] = ()
    base_models: tuple[str, ...] = ()
    once: bool = False
    is_unet: bool = False
    text_encoders: Mapping[str, TextEncoder] | None = None


@dataclass(frozen=True)
class Suffix:
    """What a tensor's key ends in, and so what it is: ``role`` within ``algorithm``.

    ``pattern`` may capture ``{adapter:*}``, a PEFT adapter name; ``spelling`` is how the report names the dialect. The
    characters ``keep``, with which the match begins, stay with the module path. ``parameter`` is the module's own that
    the tensor is for: ``"weight"``, ``"bias"`` or another by its name.
    """

    pattern: str
    role: str
    algorithm: str
    spelling: str = ""
    keep: str = ""
    parameter: str = "weight"


@dataclass(frozen=True)
class Prefix:
    """What a key may begin with, before the module path. ``component`` is None where the prefix does not tell."""

    pattern: str
    component: str | None
    dialect: str
