"""What was asked for: LORA_MMAP_CUDA, LORA_MMAP_CUDA_ARCHS and LORA_MMAP_LABEL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

NVRTC_RELEASES = ((12, 6), (12, 8), (12, 9))
OLDEST_ARCH = 75


class BuildError(Exception):
    """What was asked for is malformed or cannot be had here. The message says what to do."""


@dataclass(frozen=True)
class Request:
    """A checked wish. ``toolkit`` is None unless a release was named; ``archs`` is empty for the toolkit's default."""

    mode: str  # "off", "auto" or "release"
    toolkit: tuple[int, int] | None = None
    archs: tuple[int, ...] = ()

    @staticmethod
    def parse(cuda: str = "", archs: str = "") -> Request:
        """Of the two settings as text, empty for the default. Raises :class:`BuildError`."""
        asked = cuda.strip().lower() or "auto"
        wanted = _parse_archs(archs)
        if asked in ("off", "auto"):
            return Request(asked, archs=wanted)
        named = re.fullmatch(r"(\d+)\.(\d+)", asked)
        release = (int(named[1]), int(named[2])) if named else None
        if release is None or not (release in NVRTC_RELEASES or release[0] == 13):
            raise BuildError(
                f"LORA_MMAP_CUDA={cuda!r} is none of off, auto, 12.6, 12.8, 12.9, 13.0"
                " (or another 13.x that is installed)"
            )
        return Request("release", release, wanted)

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Request:
        """Raises :class:`BuildError`."""
        return Request.parse(environment.get("LORA_MMAP_CUDA", ""), environment.get("LORA_MMAP_CUDA_ARCHS", ""))

    def build_requirements(self) -> list[str]:
        """What pip has to install before the build: the compiler, where PyPI is the place it comes from."""
        if self.toolkit not in NVRTC_RELEASES:
            return []
        major, minor = self.toolkit
        return [f"nvidia-cuda-nvrtc-cu{major}=={major}.{minor}.*"]


def default_archs(toolkit: tuple[int, int]) -> tuple[int, ...]:
    """One image for each generation of devices that this toolkit knows; a newer minor runs the older one's."""
    return (75, 80, 86, 89, 90) if toolkit < (12, 8) else (75, 80, 86, 89, 90, 100, 120)


def label(toolkit: tuple[int, int] | None, wish: str, from_sdist: bool) -> str:
    """The local version label: "+cu128", "+cpu" or "". ``wish`` is LORA_MMAP_LABEL.

    Without a wish, a build from an sdist has none: pip refuses to install a version other than the sdist's own.
    """
    if wish not in ("", "none", "cuda"):
        raise BuildError(f"LORA_MMAP_LABEL={wish!r} is neither none nor cuda")
    if wish == "none" or (from_sdist and not wish):
        return ""
    return f"+cu{toolkit[0]}{toolkit[1]}" if toolkit else "+cpu"


def _parse_archs(text: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[;,\s]+", text.strip()) if word]
    for word in words:
        if not re.fullmatch(r"\d{2,3}", word) or int(word) < OLDEST_ARCH:
            raise BuildError(
                f"LORA_MMAP_CUDA_ARCHS={text!r}: {word!r} is no architecture from {OLDEST_ARCH} on;"
                " write compute capabilities without the dot, such as 80;90"
            )
    return tuple(sorted({int(word) for word in words}))
