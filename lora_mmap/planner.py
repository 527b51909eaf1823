"""Deciding what a composition will do: names resolved, shapes and components checked, before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence

from .adapter import Adapter
from .algorithms.formula import Formula
from .components import foreign_groups
from .errors import ModelError
from .formula_placing import attempt, bearers, stored
from .geometry import FUSABLE_DEVICES, Geometry
from .misfits import lacking, misfit, several, wholes
from .model_weights import ModelWeights
from .names import Names
from .outcomes import (
    ABSENT,
    APPLIED,
    DIRECT,
    IGNORED,
    SKIPPED,
    UNSUPPORTED,
    EntryPlan,
    Landing,
    Outcome,
)
from .pairing import Pair, Recognised, pair_up
from .placing import Target, cuts, landings
from .plan import NEGLIGIBLE, Plan
from .same_rows import settle_overlaps
from .targets import awq, exact_rank
from .targets.branch_place import BranchPlace
from .targets.branch_plan import NO_WISHES, Wishes
from .terms import Cut


def make_plan(
    weights: ModelWeights,
    entries: Sequence[tuple[Adapter, float]],
    component: str | None,
    dry_run: bool = False,
    wishes: Wishes = NO_WISHES,
) -> Plan:
    """Resolves and validates all adapters against one model; touches no weight and reads no factor.

    A ``dry_run`` plan may lead to weights that are elsewhere than on the CPU, or nowhere (meta).
    """
    planner = _Planner(weights, component, dry_run, wishes)
    return Plan([planner.add(adapter, strength) for adapter, strength in entries], weights, wishes)


class _Planner:
    def __init__(self, weights: ModelWeights, component: str | None, dry_run: bool, wishes: Wishes) -> None:
        self.wishes = wishes
        self.anywhere = dry_run
        self.all_here = dry_run or weights.all_within_reach
        self.weights = weights
        self.index = weights.index
        self.modules = weights.index.module_names
        self.component = component

    def add(self, adapter: Adapter, strength: float) -> EntryPlan:
        groups = len(adapter.classification)
        if abs(strength) < NEGLIGIBLE:
            skipped = Outcome(SKIPPED, f"strength {strength:g} is negligible")
            return EntryPlan(adapter, strength, [skipped] * groups, self.modules)
        entry = EntryPlan(adapter, strength, [DIRECT] * groups, self.modules)
        # The pair is all of the module that its name means: nearly every pair of nearly every file.
        quick = adapter.is_plain and self.all_here
        entry.direct = adapter.classification.fit(self.index.names) if quick else [-1] * groups
        if self.weights.has_branches:
            entry.direct = [module if self._takes_all(module) else -1 for module in entry.direct]
        if -1 in entry.direct or self.component is not None or adapter.mixes_components:
            self._place_others(entry)
        settle_overlaps(entry, self.weights)
        return entry

    def _place_others(self, entry: EntryPlan) -> None:
        names = Names(entry.adapter, self.index)
        foreign = foreign_groups(entry.adapter, names, self.weights, self.component)
        for group, why in foreign.items():
            entry.outcomes[group], entry.direct[group] = Outcome(ABSENT, why), -1
        for group in [group for group, module in enumerate(entry.direct) if module < 0 and group not in foreign]:
            pair = pair_up(entry.adapter)[group]
            if isinstance(pair, Recognised):
                entry.outcomes[group] = self._place_formulas(entry, pair, names)
            else:
                entry.outcomes[group] = self._place(entry, pair, names)

    def _place(self, entry: EntryPlan, pair: Pair, names: Names) -> Outcome:
        """The outcome of a plain pair, which is planned where it can be."""
        ways = names.ways(pair.group, names.resolutions[pair.group])
        if isinstance(ways, Outcome):
            return ways
        fitting = []
        for way in ways:
            found = self._land(way, {"weight": (pair.rows, pair.cols)})
            if found and all(self._same_kernel(entry.adapter, pair, target) for target in way):
                fitting.append((way, found))
        if not fitting:
            return misfit(entry.adapter, pair, ways[0], self.weights)
        if len(fitting) > 1:
            return several(landed for _, landed in fitting)
        way, landed = fitting[0]
        placed: list[Cut] = []
        for target in way:
            geometry = self._writable(target)
            if self._is_left_alone(geometry):
                return Outcome(SKIPPED, awq.SKIPPED, tuple(landed))
            if isinstance(geometry, str):
                return Outcome(UNSUPPORTED, geometry, tuple(landed))
            placed += cuts((pair.rows, pair.cols), target.placement, geometry)
        entry.placed[pair.group] = placed
        return Outcome(APPLIED, "", tuple(landed))

    def _place_formulas(self, entry: EntryPlan, group: Recognised, names: Names) -> Outcome:
        """The outcome of what is no plain pair, which is planned where there are formulas for it."""
        if group.kind == IGNORED:
            return Outcome(IGNORED, group.reason)
        child = names.child(group.group, group.forms)
        ways = names.ways(group.group, names.resolutions[group.group] if child is None else child)
        if not group.formulas:
            return self._explain(group, ways)
        if isinstance(ways, Outcome):
            return ways
        group = stored(group, ways[0], self.weights)
        found = [attempt(way, group, self.weights) for way in ways]
        done = [one for one in found if one.placed and one.obstacle is None]
        fewest = min((len(one.missing) for one in done), default=0)
        best = [one for one in done if len(one.missing) == fewest]
        if len(best) > 1:
            return several(one.landed for one in best)
        chosen = best[0] if best else next((one for one in found if one.obstacle), found[0])
        if best:
            if any(self._is_left_alone(cut.geometry) for cut in chosen.placed):
                return Outcome(SKIPPED, awq.SKIPPED, tuple(chosen.landed))
            obstacles = (
                self._unreachable(cut.geometry)
                or self._unbranchable(entry.adapter, group.formulas[cut.parameter], cut.geometry)
                for cut in chosen.placed
            )
            if why := next(filter(None, obstacles), ""):
                return Outcome(UNSUPPORTED, why, tuple(chosen.landed))
            entry.placed[group.group] = chosen.placed
            entry.formulas[group.group] = group.formulas
        return chosen.outcome

    def _explain(self, group: Recognised, ways: list[list[Target]] | Outcome) -> Outcome:
        """The outcome of what cannot be done; where it would go is said if its name and shapes tell."""
        if isinstance(ways, Outcome):
            # A broken file stays broken where the model has no place for it; other algorithms are just absent there.
            return Outcome(group.kind, group.reason) if group.kind != UNSUPPORTED else ways
        if not group.forms:
            return Outcome(group.kind, group.reason, wholes(ways[0]))
        for way in ways:
            landed = self._land(way, group.forms)
            if landed:
                return Outcome(group.kind, group.reason, tuple(landed))
        partly = {name: self._land(ways[0], {name: form}) for name, form in group.forms.items()}
        modules = ", ".join(f"'{target.module}'" for target in ways[0])
        missing = " and no ".join(
            lacking(ways[0], name, group.forms[name], self.weights) for name, here in partly.items() if not here
        )
        return Outcome(
            group.kind,
            f"{group.reason}; and module {modules} has no {missing}",
            tuple(landing for here in partly.values() for landing in here),
        )

    def _land(self, way: list[Target], forms: dict[str, tuple[int | None, int | None]]) -> list[Landing]:
        """Where each parameter of ``forms`` lands in the modules of ``way``; empty where something does not fit."""
        landed: list[Landing] = []
        for parameter, form in forms.items():
            for target in bearers(way, parameter, self.weights):
                extent = self.weights.extent(target.number, parameter)
                if extent is None:
                    return []
                here = landings(target, extent, form)
                if here is None:
                    return []
                landed += [landing._replace(parameter=parameter) for landing in here]
        return landed

    def _writable(self, target: Target) -> Geometry | BranchPlace | str:
        geometry = self.weights.look(target.number)
        if isinstance(geometry, str):
            return f"module '{target.module}': {geometry}"
        if elsewhere := self._unreachable(geometry):
            return elsewhere
        if target.placement.axis == "cols" and geometry.column_map is not None:
            return f"module '{target.module}': sections of its input features are supported for plain memory order only"
        return geometry

    def _takes_all(self, module: int) -> bool:
        """False where a module that a pair is the whole of has to be looked at more closely."""
        place = self.weights.look(module) if module >= 0 else None
        if not isinstance(place, BranchPlace):
            return True
        return not self._is_left_alone(place) and (self.anywhere or place.within_reach)

    def _is_left_alone(self, place: Geometry | BranchPlace | str) -> bool:
        return isinstance(place, BranchPlace) and place.is_modulation and not self.wishes.modulation

    def _unbranchable(self, adapter: Adapter, formula: Formula, place: Geometry | BranchPlace) -> str:
        """Why a formula cannot be put beside a weight, or an empty text."""
        if not isinstance(place, BranchPlace):
            return ""
        obstacle = exact_rank.obstacle(formula)
        if not obstacle:
            room = place.branch.limit - place.branch.base_rank
            rank = exact_rank.ranks(formula, adapter.source.shapes, self.wishes.svd_rank)
            obstacle = f"it takes {rank} ranks, there are {room}; svd_rank= cuts them down" if rank > room else ""
        return obstacle and f"module '{place.name}': {obstacle}"

    def _unreachable(self, geometry: Geometry | BranchPlace) -> str:
        """Why nothing can be written there now, or an empty text. Raises ModelError for devices without kernels."""
        if self.anywhere:
            return ""
        if geometry.device.type == "meta":
            return f"module '{geometry.name}': its weight is on the meta device, there is nothing there"
        if not geometry.within_reach:
            raise ModelError(
                f"[compose] weight '{geometry.path}' is on {geometry.device}, expected one of "
                f"{', '.join(FUSABLE_DEVICES)}"
            )
        return ""

    def _same_kernel(self, adapter: Adapter, pair: Pair, target: Target) -> bool:
        """False for a convolution's factor whose kernel is another with as many elements. 2-D ones are flattened."""
        down = adapter.source.shapes[pair.down]
        weight = self.index.entry(target.number).weight
        return weight is None or len(down) == 2 or weight.dim() == 2 or tuple(weight.shape[1:]) == down[1:]
