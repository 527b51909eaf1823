"""docs/algorithms.md is the script's: its rows are those that are measured, and measuring again keeps the bounds."""

import pytest
from written_by_peers import MISSING, SPECIMENS

from bench.accuracy.document import PATH, identity, table_of, with_table
from bench.accuracy.figures import figures
from bench.cases import accuracy
from bench.registry import Settings

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING}")


def rows_of(page):
    """Algorithm, tensors and peer of every row of the table."""
    lines = [line for line in table_of(page).splitlines() if line.startswith("| ")][1:]
    return ["|".join(line.split("|")[:4]) + "|" for line in lines]


def test_the_table_has_a_row_for_every_specimen():
    wanted = [identity(found) for found in SPECIMENS.values()]
    assert rows_of(PATH.read_text()) == wanted
    assert len(set(wanted)) == len(wanted) > 40


def test_measured_again_it_keeps_the_bounds(tmp_path):
    result = accuracy.run(Settings(quick=True, repeats=1, warm_allocator=False, scratch=tmp_path))
    assert not result.left_out
    assert len(result.goals) == len(SPECIMENS)
    assert [goal.statement for goal in result.goals if not goal.passed] == []
    assert result.facts.keys() == SPECIMENS.keys()


def test_only_the_table_is_written_anew(tmp_path):
    rows = list(figures(list(SPECIMENS.values())[:2], tmp_path, ["BF16", "F32"]))
    kept = PATH.read_text()
    made = with_table(kept, rows)
    assert rows_of(made) == rows_of(kept)[:2]
    assert made.replace(table_of(made), "") == kept.replace(table_of(kept), "")
    for row in rows:
        assert 0 < row.ours["BF16"].norm < 2.0**-8
        assert row.theirs["BF16"].norm > 0
