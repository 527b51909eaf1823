"""Deciding what a composition will do: names resolved, shapes and components checked, before anything is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .adapter import Adapter
from .errors import AmbiguousKeyError, ModelError
from .families.placement import WHOLE, Placement
from .geometry import FUSABLE_DEVICES, Geometry
from .model_weights import ModelWeights
from .pairing import Pair, Recognised, pair_up
from .plan import (
    ABSENT,
    AMBIGUOUS,
    APPLIED,
    DIRECT,
    MISFIT,
    NEGLIGIBLE,
    SKIPPED,
    UNSUPPORTED,
    Cut,
    EntryPlan,
    Landing,
    Outcome,
    Plan,
    Resolution,
)

_NOT_FOUND, _SEVERAL = 1, 2  # a resolution's outcome


def make_plan(
    weights: ModelWeights, entries: Sequence[tuple[Adapter, float]], component: str | None, dry_run: bool = False
) -> Plan:
    """Resolves and validates all adapters against one model; touches no weight and reads no factor.

    A ``dry_run`` plan may lead to weights that are elsewhere than on the CPU, or nowhere (meta).
    """
    planner = _Planner(weights, component, dry_run)
    return Plan([planner.add(adapter, strength) for adapter, strength in entries], weights)


class _Planner:
    def __init__(self, weights: ModelWeights, component: str | None, dry_run: bool) -> None:
        self.anywhere = dry_run
        self.all_here = dry_run or weights.all_within_reach
        self.look = weights.look
        self.names = weights.index.names
        self.modules = weights.index.module_names
        self.component = component

    def add(self, adapter: Adapter, strength: float) -> EntryPlan:
        groups = len(adapter.classification)
        if abs(strength) < NEGLIGIBLE:
            skipped = Outcome(SKIPPED, f"strength {strength:g} is negligible")
            return EntryPlan(adapter, strength, [skipped] * groups, self.modules)
        entry = EntryPlan(adapter, strength, [DIRECT] * groups, self.modules)
        # The name says the module and the pair is all of it: nearly every pair of nearly every file.
        one_component = self.component is None and not adapter.mixes_components
        quick = one_component and adapter.is_plain and self.all_here
        entry.direct = adapter.classification.fit(self.names) if quick else [-1] * groups
        others = [group for group, module in enumerate(entry.direct) if module < 0]
        if others:
            self._place_others(entry, others, one_component)
        return entry

    def _place_others(self, entry: EntryPlan, groups: list[int], one_component: bool) -> None:
        pairs = pair_up(entry.adapter)
        resolutions = entry.adapter.classification.resolve(self.names)
        foreign = {} if one_component else self._foreign_groups(entry.adapter, pairs, resolutions)
        for group in groups:
            pair = pairs[group]
            if group in foreign:
                entry.outcomes[group] = Outcome(ABSENT, foreign[group])
            elif isinstance(pair, Recognised):
                entry.outcomes[group] = Outcome(pair.kind, pair.reason)
            else:
                entry.outcomes[group] = self._place(entry, pair, resolutions[group])

    def _place(self, entry: EntryPlan, pair: Pair, found: Resolution) -> Outcome:
        modules: tuple[int, ...]
        placements: tuple[Placement, ...] = (WHOLE,)
        if isinstance(found, int):
            modules = (found,)
        else:
            outcome, _, rule, alternative, modules = found
            if outcome == _NOT_FOUND:
                return Outcome(ABSENT, "no module of the model has this name")
            if outcome == _SEVERAL:
                names = ", ".join(f"'{self.modules[module]}'" for module in modules)
                return Outcome(AMBIGUOUS, f"it fits several modules: {names}")
            placements = entry.adapter.tables.rules[rule].alternatives[alternative].placements
        landings, cuts = [], []
        for module, placement in zip(modules, placements, strict=True):
            name = self.modules[module]
            geometry = self.look(module)
            if isinstance(geometry, str):
                return Outcome(UNSUPPORTED, f"module '{name}': {geometry}")
            if geometry.device.type == "meta" and not self.anywhere:
                return Outcome(
                    UNSUPPORTED, f"module '{name}': its weight is on the meta device, there is nothing there"
                )
            cut = _cut(pair, placement, geometry)
            if cut is None or not _same_kernel(entry.adapter, pair, geometry):
                return Outcome(MISFIT, _misfit(entry.adapter, pair, placement, geometry, name))
            if not geometry.within_reach and not self.anywhere:
                raise ModelError(
                    f"[compose] weight '{name}.weight' is on {geometry.device}, expected one of "
                    f"{', '.join(FUSABLE_DEVICES)}"
                )
            cuts.append(cut)
            landings.append(Landing(name, None if (cut.begin, cut.end) == (0, geometry.rows) else (cut.begin, cut.end)))
        entry.placed[pair.group] = cuts
        return Outcome(APPLIED, "", tuple(landings))

    def _foreign_groups(
        self,
        adapter: Adapter,
        pairs: Sequence[Pair | Recognised],
        resolutions: Sequence[Resolution],
    ) -> dict[int, str]:
        """Groups whose prefix names another pipeline component than the one this model is.

        Text encoders share module names: which of them a bare model is follows from ``component=`` or from the shapes.
        """
        components = adapter.group_components
        here = self.component or self._component_by_shape(components, pairs, resolutions)
        if here is None:
            return {}
        return {
            group: f"it belongs to {component}, this model is {here}"
            for group, component in enumerate(components)
            if component not in (None, here)
        }

    def _component_by_shape(
        self,
        components: Sequence[str | None],
        pairs: Sequence[Pair | Recognised],
        resolutions: Sequence[Resolution],
    ) -> str | None:
        hits: Counter[str] = Counter()
        misfits: Counter[str] = Counter()
        for component, pair, module in zip(components, pairs, resolutions, strict=True):
            if component is None or type(module) is not int or type(pair) is not Pair:
                continue
            geometry = self.look(module)
            if isinstance(geometry, Geometry):
                hits[component] += 1
                misfits[component] += (pair.rows, pair.cols) != (geometry.rows, geometry.cols)
        if len(hits) < 2:
            return next(iter(hits), None)
        fitting = [component for component in hits if not misfits[component]]
        if len(fitting) != 1:
            raise AmbiguousKeyError(
                f"[compose] the adapter has keys for {', '.join(sorted(hits))} and the model could be "
                f"{'any' if fitting else 'none'} of them by its shapes: say which with component="
            )
        return fitting[0]


def _cut(pair: Pair, placement: Placement, geometry: Geometry) -> Cut | None:
    """Where the pair lands in the weight, or None where the shapes do not fit."""
    if pair.cols != geometry.cols:
        return None
    if placement.side == "whole":
        return Cut(geometry, 0, geometry.rows, 0) if pair.rows == geometry.rows else None
    rows = placement.rows(geometry.rows if placement.side == "target" else pair.rows)
    if rows is None:
        return None
    begin, end = rows
    if placement.side == "target":
        return Cut(geometry, begin, end, 0) if end - begin == pair.rows else None
    return Cut(geometry, 0, geometry.rows, begin) if end - begin == geometry.rows else None


def _same_kernel(adapter: Adapter, pair: Pair, geometry: Geometry) -> bool:
    """False for a convolution's factor whose kernel is another one with as many elements. 2-D factors are flattened."""
    down = adapter.source.shapes[pair.down]
    return len(down) == 2 or len(geometry.shape) == 2 or tuple(geometry.shape[1:]) == down[1:]


def _misfit(adapter: Adapter, pair: Pair, placement: Placement, geometry: Geometry, module: str) -> str:
    names, shapes = adapter.source.names, adapter.source.shapes
    where = {"whole": "", "target": f", part {placement.part} of {len(placement.sizes)} of its rows"}
    part = where.get(placement.side, f", from part {placement.part} of {len(placement.sizes)} of the rows")
    return (
        f"'{names[pair.up]}' {list(shapes[pair.up])} x '{names[pair.down]}' {list(shapes[pair.down])} make "
        f"[{pair.rows}, {pair.cols}], expected [{geometry.rows}, {geometry.cols}] as module '{module}' has{part}; "
        "is the adapter made for another model?"
    )
