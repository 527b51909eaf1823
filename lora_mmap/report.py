"""What a composition did, or would do: truthful, per key and per module, printable and as plain data."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .describe import algorithms, scales
from .key_outcomes import counts, key_outcomes, unknown_keys
from .mapped_memory import file_backed_nbytes
from .outcomes import (
    ABSENT,
    AMBIGUOUS,
    APPLIED,
    IGNORED,
    MALFORMED,
    MISFIT,
    SKIPPED,
    UNKNOWN,
    UNSUPPORTED,
    EntryPlan,
)
from .pairing import Pair, pair_up
from .report_card import card
from .sharing import lazy

if TYPE_CHECKING:
    from .pending import Pending

_STATUSES = (APPLIED, ABSENT, UNSUPPORTED, UNKNOWN, IGNORED, SKIPPED, MALFORMED, MISFIT, AMBIGUOUS)
_NEAREST_LIMIT = 20  # unmatched modules that get a list of similar names
_NEAREST_LENGTH = 512  # no module's name is longer


@dataclass
class Report:
    """True when at least one module was (or, from ``check``, would be) changed by an adapter.

    From ``compose(..., non_blocking=True)`` it may be pending: its truth, its text and :meth:`to_dict` then wait.

    ``weights`` counts the storage regions written (tied weights are one), and the branches of quantised modules.
    ``bytes_read`` counts headers, alphas and factors read from files during the call; ``files_opened`` and
    ``keys_classified`` likewise. ``stages`` are wall-clock seconds. ``restore`` maps a tier to its weights and bytes,
    ``tiers`` a module to its tier and bytes, ``branches`` a quantised module to its target, its own ranks
    (``base_rank``), those of adapters (``rank``), the room for these (``capacity``) and, by entry, what cutting down
    left of the squared norm (``retained_energy``).
    ``memory`` is anonymous memory in bytes: ``staging``, ``arena`` (on GPUs) and ``transient`` were needed for the call
    only, ``pinned`` is kept for the way to GPUs until ``clear_lora_cache()``, ``restore`` (what brings pristine bytes
    back) and ``retained`` (factors) are held. ``retained_on_devices`` is device memory, ``branches`` what modules'
    branches have grown by, where they are.
    """

    entries: list[EntryPlan]
    module_names: list[str]
    weights: int = 0
    dry_run: bool = False
    bytes_read: int = 0
    files_opened: int = 0
    headers_parsed: int = 0
    keys_classified: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    restore: dict[str, dict[str, int]] = field(default_factory=dict)
    tiers: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    branches: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    memory: dict[str, int] = field(default_factory=dict)
    written: list[tuple[int, int]] = field(default_factory=list, repr=False)
    pending: Pending | None = field(default=None, repr=False)

    @property
    def is_pending(self) -> bool:
        """True while GPUs are still working on it: asking for more than the fields would wait."""
        return self.pending is not None and not self.pending.is_done

    def wait(self) -> Report:
        """Waits until the composition is settled. Raises FusionOverflowError or CudaError where it failed, after the
        weights were put back. Returns itself."""
        if self.pending is not None:
            self.pending.settle()
        return self

    def __bool__(self) -> bool:
        self.wait()
        return any(entry.count(APPLIED) for entry in self.entries)

    def __str__(self) -> str:
        self.wait()
        return card(self)

    @property
    def file_backed(self) -> int:
        """Bytes of the written weights that lie in mapped files, whose pages were copied on write.

        Looked up in the process's mappings when asked, so ask while the model is alive.
        """
        return file_backed_nbytes(self.written)

    @property
    def applied(self) -> int:
        """Factor pairs applied, over all adapters."""
        return sum(entry.count(APPLIED) for entry in self.entries)

    @property
    def unmatched(self) -> list[str]:
        """Module paths, as the files write them, that have no place in the model."""
        return [
            entry.adapter.groups[i].stem
            for entry in self.entries
            for i, outcome in enumerate(entry.outcomes)
            if outcome.status in (ABSENT, UNKNOWN)
        ]

    @lazy
    def nearest(self) -> dict[str, list[str]]:
        """For the first module paths and keys that nobody knows: the model's modules with the most similar names."""
        found: dict[str, list[str]] = {}
        for entry in self.entries:
            for group, outcome in zip(entry.adapter.groups, entry.outcomes, strict=True):
                if outcome.status in (ABSENT, UNKNOWN) and not group.rules and len(found) < _NEAREST_LIMIT:
                    found.setdefault(group.stem, self._like(group.path))
            for key in unknown_keys(entry.adapter)[: _NEAREST_LIMIT - len(found)]:
                found.setdefault(key, self._like(key))
        return found

    def _like(self, path: str) -> list[str]:
        if len(path) > _NEAREST_LENGTH:
            return []
        return [self._flat[name] for name in difflib.get_close_matches(path.replace(".", "_"), self._flat, n=3)]

    @lazy
    def _flat(self) -> dict[str, str]:
        return {name.replace(".", "_"): name for name in self.module_names}

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain data, JSON-serialisable. Built on demand."""
        self.wait()
        keys: dict[str, Any] = {}
        adapters = []
        for entry in self.entries:
            own = key_outcomes(entry, self.nearest)
            keys = {**own, **keys}
            adapters.append({**_adapter(entry), "counts": counts(own), "keys": own})
        return {
            "applied": self.applied,
            "dry_run": self.dry_run,
            "adapters": adapters,
            "modules": self._modules(),
            "unmatched": [{"module": stem, "nearest": self.nearest.get(stem, [])} for stem in self.unmatched],
            "bytes_read": self.bytes_read,
            "files_opened": self.files_opened,
            "headers_parsed": self.headers_parsed,
            "keys_classified": self.keys_classified,
            "stages": dict(self.stages),
            "restore": {tier: dict(cost) for tier, cost in self.restore.items()},
            "memory": {**self.memory, "file_backed": self.file_backed},
            "keys": keys,
        }

    def _modules(self) -> dict[str, Any]:
        modules: dict[str, Any] = {}
        for position, entry in enumerate(self.entries):
            pairs = pair_up(entry.adapter) if entry.count(APPLIED) else []
            for group, pair in enumerate(pairs):
                if entry.outcomes[group].status != APPLIED:
                    continue
                for landing in entry.landings(group):
                    undone = self.tiers.get(landing.module)
                    empty: dict[str, Any] = {"outcome": APPLIED, "target": "dense", "terms": [], "restore": undone}
                    beside = self.branches.get(landing.module, {}) if landing.parameter == "weight" else {}
                    module = modules.setdefault(landing.module, empty)
                    module.update(beside)
                    terms = module["terms"]
                    formula = pair if isinstance(pair, Pair) else pair.formulas[landing.parameter]
                    terms.append(
                        {
                            "adapter": position,
                            "algorithm": "lora" if isinstance(pair, Pair) else pair.algorithm,
                            "parameter": landing.parameter,
                            "rank": pair.rank,
                            "scale": entry.strength * formula.scale,
                            "alpha": pair.scale_source,
                            "rows": list(landing.rows) if landing.rows else None,
                            "cols": list(landing.cols) if landing.cols else None,
                            "layout": landing.layout,
                        }
                    )
        return modules


def _adapter(entry: EntryPlan) -> dict[str, Any]:
    adapter = entry.adapter
    return {
        "label": adapter.label,
        "format": adapter.source.format,
        "dialect": adapter.dialect,
        "family": adapter.family,
        "strength": entry.strength,
        "algorithms": algorithms(adapter),
        "scales": [{**kind, "effective": entry.strength * kind["scale"]} for kind in scales(adapter)],
        "tensors": len(adapter),
        "bytes": adapter.nbytes,
        "outcomes": {status: entry.count(status) for status in _STATUSES if entry.count(status)},
        "unknown_keys": len(unknown_keys(adapter)),
    }
