"""``python -m bench.accuracy``: measures everything and writes the table of docs/algorithms.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .document import PATH, with_table
from .figures import all_specimens, figures
from .measurement import PEERS, why_not


def _main() -> None:
    absent = {peer: reason for peer in PEERS if (reason := why_not(peer))}
    if absent:
        sys.exit(f"the table has a row for every peer: {absent}")
    with tempfile.TemporaryDirectory(prefix="lora_mmap-accuracy-") as folder:
        rows = list(figures(all_specimens(), Path(folder)))
    PATH.write_text(with_table(PATH.read_text(), rows))
    print(f"{PATH}: {len(rows)} rows, at most {max(row.of_bound for row in rows):.2f} of the bound")


if __name__ == "__main__":
    _main()
