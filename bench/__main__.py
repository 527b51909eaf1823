"""``python -m bench [CASE ...]``: builds what the run needs, then runs it."""

from __future__ import annotations

import sys

from .build import build_if_needed


def _main() -> None:
    build_if_needed(sys.argv[1:])

    import typer

    from .app import main  # after the build: it loads the native core

    typer.run(main)


if __name__ == "__main__":
    _main()
