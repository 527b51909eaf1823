"""How exact the fused weights are: adapters that peers made, against the formulas. Times nothing."""

from __future__ import annotations

from dataclasses import asdict

from ..accuracy import measurement
from ..accuracy.figures import DTYPES, Figures, figures
from ..registry import Settings, case
from ..results import CaseResult, Goal


@case("accuracy")
def run(settings: Settings) -> CaseResult:
    dtypes = ["BF16"] if settings.quick else list(DTYPES)
    result = CaseResult(
        "accuracy",
        "Adapters made and saved by a peer, fused into small layers; the reference is the published formula in "
        f"extended precision. Weights of {', '.join(dtypes)}.",
        notes=[
            "`python -m bench.accuracy` writes the whole table to docs/algorithms.md",
            "the bound: ulp(W') + R * eps * sum |terms|, see docs/numerics.md",
        ],
    )
    for peer in measurement.PEERS:
        reason = measurement.why_not(peer)
        if reason is not None:
            result.left_out.append(f"{peer}: {reason}")
            continue
        for row in figures(measurement.specimens(peer), settings.scratch / peer, dtypes):
            _add(result, row)
    return result


def _add(result: CaseResult, row: Figures) -> None:
    name = row.specimen.name
    statement = f"{name}: within the contract's bound"
    result.goals.append(Goal(statement, f"{row.of_bound:.2f} of it", row.of_bound <= 1))
    ours, theirs = row.ours["BF16"].norm, row.theirs["BF16"].norm
    result.summary.append((f"{name}: relative error, BF16", f"{ours:.1e} (peer: {theirs:.1e})"))
    result.facts[name] = {
        who: {dtype: asdict(error) for dtype, error in found.items()}
        for who, found in (("ours", row.ours), (row.specimen.peer, row.theirs))
    }
