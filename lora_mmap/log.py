"""What goes to the log: format detection and the report at INFO, one line per module when ``nunchaku_log=1``.

Nothing is formatted unless somebody listens.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .outcomes import ABSENT, APPLIED, UNKNOWN, UNSUPPORTED
from .targets.svdquant import RANK_ADVISED

if TYPE_CHECKING:
    from .adapter import Adapter
    from .report import Report
    from .targets.branch_plan import BranchPlan

logger = logging.getLogger("lora_mmap")


def opened(adapter: Adapter) -> None:
    """One line about what was detected; from the parse that the fusion uses, so it costs no second read."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "%s: %s, %s, family %s, %d tensors, %d modules, %.1f MB",
            adapter.label,
            adapter.source.format,
            adapter.dialect,
            adapter.family or "unknown",
            len(adapter),
            len(adapter.classification),
            adapter.nbytes / 1e6,
        )


def skipped(source: object, strength: float) -> None:
    """An adapter left out for its strength."""
    if logger.isEnabledFor(logging.INFO):
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__
        logger.info("%s: skipped, strength %g is negligible", name, strength)


def report(result: Report) -> None:
    """The card, and with ``nunchaku_log=1`` in the environment a line per module."""
    if not result and any(entry.count(ABSENT) or entry.adapter.classification.unknown for entry in result.entries):
        logger.warning("no key of the adapters found a place in the model: nothing was applied")
    elif not result and (reason := _unsupported(result)):
        logger.warning("nothing was applied: %s", reason)
    if not logger.isEnabledFor(logging.INFO):
        return
    logger.info("composition\n%s", result)
    if os.environ.get("nunchaku_log") == "1":  # noqa: SIM112 - upstream's name
        for entry in result.entries:
            for position, (group, outcome) in enumerate(zip(entry.adapter.groups, entry.outcomes, strict=True)):
                if outcome.status in (APPLIED, ABSENT, UNSUPPORTED, UNKNOWN):
                    modules = ", ".join(landing.module for landing in entry.landings(position))
                    logger.info("%s: %s %s", group.stem, outcome.status, outcome.reason or modules)


def costly_branches(branches: Iterable[BranchPlan]) -> None:
    """One warning for all that have more ranks than is good."""
    costly = {branch.geometry.name: rank for branch in branches if (rank := branch.costly_rank)}
    if costly:
        name = max(costly, key=costly.__getitem__)
        logger.warning(
            "%d low-rank branches get more than %d ranks, '%s' %d: every step computes all of them. Compose fewer "
            "adapters, or cut them down with svd_rank=",
            len(costly),
            RANK_ADVISED,
            name,
            costly[name],
        )


def failed_unasked(error: Exception) -> None:
    """What went wrong with a composition that nobody can ask about any more."""
    logger.warning("a composition whose model is gone was taken back: %s", error)


def routed(names: Sequence[tuple[str, str]], seconds: float) -> None:
    """What :func:`.install` did: (module, name) pairs."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("safetensors' loaders routed through lora_mmap: %s, %.1f ms", _count(names), seconds * 1e3)


def restored(names: Sequence[tuple[str, str]]) -> None:
    """What :func:`.uninstall` did."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("safetensors' loaders given back: %s", _count(names))


def patched_by_others(names: Iterable[str]) -> None:
    """Names that hold neither safetensors' loaders nor ours."""
    logger.warning("patched by somebody else, left alone: %s", ", ".join(names))


def _unsupported(result: Report) -> str:
    """Why the first module of a known and unsupported algorithm was left out, or an empty text."""
    outcomes = (outcome for entry in result.entries for outcome in entry.outcomes)
    return next((outcome.reason for outcome in outcomes if outcome.status == UNSUPPORTED), "")


def _count(names: Sequence[tuple[str, str]]) -> str:
    return f"{len(names)} names in {len({module for module, _ in names})} modules"
