"""What CMake needs of a choice: the list of images, and a source file that embeds them."""

from __future__ import annotations

from pathlib import Path

from .choice import Choice
from .compilers import Image

_HEAD = """\
// Written by compile_images: the images of this build.
#include "cuda/images/images.h"

#include <array>
"""

# The assembler reads the image, so no compiler has to parse it as numbers. The NUL ends a PTX text.
_BYTES = """
asm(R"(
  .section .rodata
  .balign 64
  .hidden {symbol}
  .globl {symbol}
{symbol}:
  .incbin "{path}"
{nul}{symbol}_end:
  .balign 8
  .hidden {symbol}_nbytes
  .globl {symbol}_nbytes
{symbol}_nbytes:
  .quad {symbol}_end - {symbol}
  .previous
)");
extern "C" {{
[[gnu::visibility("hidden")]] extern const std::byte {symbol}[];
[[gnu::visibility("hidden")]] extern const uint64_t {symbol}_nbytes;
}}
"""

_TAIL = """
namespace lora_mmap::cuda {{

Toolkit toolkit() {{ return {{"{compiler}", {major}, {minor}}}; }}

std::span<const Image> images() {{
  static const std::array<Image, {count}> table{{{rows}}};
  return table;
}}

}}  // namespace lora_mmap::cuda
"""


def write(choice: Choice, folder: Path) -> None:
    """Writes ``folder``/choice.cmake and ``folder``/image_table.cpp; leaves files alone that say the same already."""
    folder.mkdir(parents=True, exist_ok=True)
    _update(folder / "choice.cmake", _cmake(choice))
    _update(folder / "image_table.cpp", _source(choice, folder))


def file_name(image: Image) -> str:
    return f"{image.target}.{'ptx' if image.ptx else 'cubin'}"


def _cmake(choice: Choice) -> str:
    compiler = choice.compiler
    lines = [
        f'set(image_compiler "{compiler.name if compiler else ""}")',
        f'set(image_compiler_path "{compiler.path if compiler else ""}")',
        f"set(image_targets {' '.join(image.target for image in choice.images)})",
        f"set(image_files {' '.join(file_name(image) for image in choice.images)})",
    ]
    return "\n".join(lines) + "\n"


def _source(choice: Choice, folder: Path) -> str:
    pieces = [_HEAD]
    rows = []
    for image in choice.images:
        symbol = f"lora_mmap_{image.target}"
        path = (folder / file_name(image)).as_posix()
        pieces.append(_BYTES.format(symbol=symbol, path=path, nul="  .byte 0\n" if image.ptx else ""))
        rows.append(f"\n      Image{{{image.arch}, {str(image.ptx).lower()}, {{{symbol}, {symbol}_nbytes}}}}")
    name = choice.compiler.name if choice.compiler else ""
    major, minor = choice.toolkit or (0, 0)
    pieces.append(_TAIL.format(compiler=name, major=major, minor=minor, count=len(rows), rows=",".join(rows)))
    return "".join(pieces)


def _update(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
