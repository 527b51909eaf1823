"""Commands and their options. Exit codes: 0 fine, 1 a check failed or nothing is there, 3 the input is unusable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import LoraMmapError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="LoRA adapters into weights, and out bit for bit.")


@app.command()
def demo(
    blocks: Annotated[int, typer.Option(min=1, help="Transformer blocks of the Qwen-Image-shaped model.")] = 1,
) -> None:
    """Composes adapters in three dialects into two models of real width, checks every weight, restores, proves it."""
    from ..demo import run

    raise typer.Exit(0 if run(Console(), blocks) else 1)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .safetensors, .pt, .pth, .bin or .ckpt file, or a folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, per key, as JSON.")] = False,
) -> None:
    """Says what an adapter is: format, dialect, family, ranks, alphas, and which keys nobody knows."""
    from .inspect import show

    try:
        description = _describe(file)
    except (LoraMmapError, OSError) as error:
        Console(stderr=True).print(f"{error}", style="red", markup=False, highlight=False)
        raise typer.Exit(3) from None
    if as_json:
        typer.echo(json.dumps(description, indent=2))
    else:
        show(Console(), description)
    recognised = any(key["outcome"] == "recognised" for key in description["keys"].values())
    raise typer.Exit(0 if recognised else 1)


@app.command()
def doctor() -> None:
    """Versions, the instruction set chosen, CUDA images on board, driver, devices, and what would run on each."""
    from .doctor import show

    show(Console())


def _describe(file: Path) -> dict[str, Any]:
    from ..adapter_sources import open_adapter

    with open_adapter(file) as adapter:
        return adapter.describe()
