"""What a family table is made of. A family is data: readable by somebody who knows the model and not our code.

Paths are patterns (``csrc/keys/pattern.h``): ``{i}`` stands for a block index, ``{side:img|txt}`` for one of the listed
words, ``.`` also matches the ``_`` of trainers that flatten module paths.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Same:
    """One weight under several names."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """A fused weight whose rows (output features) are those of its parts, stacked in this order.

    ``sizes`` are the parts' relative heights; without it they are equal. The model may carry either spelling and the
    file either: a part's factors land in its rows of ``whole``, and those of ``whole`` are cut for the parts.
    """

    whole: str
    parts: tuple[str, ...]
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.sizes and len(self.sizes) != len(self.parts):
            raise ValueError(f"Rows({self.whole!r}): {len(self.parts)} parts but {len(self.sizes)} sizes")
        if not self.sizes:
            object.__setattr__(self, "sizes", (1,) * len(self.parts))


Layout = Same | Rows


@dataclass(frozen=True)
class Family:
    """The names of one model family.

    ``marks`` are paths that only this family has: an adapter is said to belong to the family most of whose marks it
    carries. ``layouts`` say how one spelling of a weight becomes another. ``components`` are those whose keys the
    layouts apply to.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    layouts: tuple[Layout, ...] = ()
    components: tuple[str, ...] = ("denoiser",)


@dataclass(frozen=True)
class Suffix:
    """What a tensor's key ends in, and so what it is: ``role`` within ``algorithm``.

    ``pattern`` may capture ``{adapter:*}``, a PEFT adapter name; ``spelling`` is how the report names the dialect.
    """

    pattern: str
    role: str
    algorithm: str
    spelling: str = ""


@dataclass(frozen=True)
class Prefix:
    """What a key may begin with, before the module path. ``component`` is None where the prefix does not tell."""

    pattern: str
    component: str | None
    dialect: str
