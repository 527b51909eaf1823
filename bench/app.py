"""The command line: progress on stderr, Markdown on stdout, JSON where asked for."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import cases as _cases  # noqa: F401  registers them
from .machine import describe
from .markdown import document
from .memory import keep_allocator_warm
from .registry import CASES, Settings, of_a_whole_run
from .results import CaseResult, run_to_dict
from .timing import progress


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="cases to run; by default all that can run here")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="smaller models, fewer rounds: under a minute")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write everything as JSON")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="write the tables as Markdown")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="rounds, in place of each case's own number")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads for everybody; torch's default otherwise")] = None,
    warm_allocator: Annotated[
        bool, typer.Option(help="keep freed memory mapped: kinder to peers that make temporaries")
    ] = False,
) -> None:
    """Measures lora_mmap beside its peers and beside the limits of this machine, all in one run."""
    chosen = names or of_a_whole_run()
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        raise typer.BadParameter(f"no case {', '.join(unknown)}; there are: {', '.join(CASES)}")
    if threads:
        torch.set_num_threads(threads)
    if warm_allocator and not keep_allocator_warm():
        raise typer.BadParameter("--warm-allocator needs glibc")
    machine = describe("warm (freed memory stays mapped)" if warm_allocator else "default (glibc)")
    options = {"cases": chosen, "quick": quick, "repeats": repeats, "warm_allocator": warm_allocator}
    results: list[CaseResult] = []
    for result in _run(chosen, quick, repeats, warm_allocator):
        results.append(result)  # files are written after every case: a long run that is cut short keeps what it has
        if json_file:
            json_file.write_text(json.dumps(run_to_dict(machine, options, results), indent=1, default=str) + "\n")
        if markdown_file:
            markdown_file.write_text(document(machine, results))
    print(document(machine, results), end="")


def _run(chosen: list[str], quick: bool, repeats: int | None, warm_allocator: bool) -> Iterator[CaseResult]:
    with tempfile.TemporaryDirectory(prefix="lora_mmap-bench-") as scratch:
        settings = Settings(quick, repeats, warm_allocator, Path(scratch))
        for name in chosen:
            progress(f"{name} ...")
            begin = time.perf_counter()
            result = CASES[name](settings)
            progress(f"{name}: {time.perf_counter() - begin:.1f} s")
            yield result
