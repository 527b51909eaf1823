"""``python -m compile_images``: ``choose`` a compiler, ``compile`` one image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import sources, table
from .choice import choose
from .compilers import Compiler, Image, Nvcc, Nvrtc
from .request import BuildError, Request


def main() -> int:
    """0, or 1 with the reason on stderr."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _choose(arguments: argparse.Namespace) -> None:
    choice = choose(Request.parse(arguments.cuda, arguments.archs))
    if arguments.out:
        table.write(choice, arguments.out)
    if arguments.required and choice.compiler is None:
        raise BuildError(choice.why)
    print(choice.why)


def _compile(arguments: argparse.Namespace) -> None:
    compiler: Compiler = Nvcc(arguments.path) if arguments.compiler == "nvcc" else Nvrtc(arguments.path)
    kind, _, arch = arguments.target.partition("_")
    image = Image(int(arch), ptx=kind == "compute")
    made, warnings = compiler.compile(arguments.source, arguments.include, image)
    if warnings.strip():
        if arguments.werror:
            raise BuildError(warnings)
        print(warnings, file=sys.stderr)
    arguments.out.write_bytes(made)
    files = sources.read_with(arguments.source, arguments.include)
    sources.write_depfile(arguments.out.with_name(arguments.out.name + ".d"), arguments.out, files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="compile_images", description=__doc__)
    commands = parser.add_subparsers(required=True)
    choosing = commands.add_parser("choose", help="say which compiler makes which images")
    choosing.add_argument("--cuda", default="", help="off, auto or a release; LORA_MMAP_CUDA")
    choosing.add_argument("--archs", default="", help="such as 80;90; LORA_MMAP_CUDA_ARCHS")
    choosing.add_argument("--out", type=Path, help="the folder for choice.cmake and image_table.cpp")
    choosing.add_argument("--required", action="store_true", help="fail where there is no compiler")
    choosing.set_defaults(run=_choose)
    compiling = commands.add_parser("compile", help="make one image and its list of dependencies, OUT.d")
    compiling.add_argument("--compiler", choices=["nvcc", "nvrtc"], required=True)
    compiling.add_argument("--path", type=Path, required=True, help="the nvcc or the libnvrtc")
    compiling.add_argument("--target", required=True, help="sm_90 or compute_90")
    compiling.add_argument("--source", type=Path, required=True)
    compiling.add_argument("--include", type=Path, required=True)
    compiling.add_argument("--out", type=Path, required=True)
    compiling.add_argument("--werror", action="store_true", help="fail where the compiler warns")
    compiling.set_defaults(run=_compile)
    return parser


if __name__ == "__main__":
    sys.exit(main())
