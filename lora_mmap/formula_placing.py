"""Where what is no plain pair lands: every parameter of a group by what its tensors do and what the model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .algorithms.formula import Formula
from .algorithms.recognised import Form, Recognised
from .families.placement import WHOLE
from .geometry import Geometry
from .misfits import expected
from .model_weights import ModelWeights
from .outcomes import ABSENT, APPLIED, MISFIT, UNSUPPORTED, Landing, Outcome
from .placing import Target, cuts, landings
from .targets.branch_place import BranchPlace
from .terms import Cut


@dataclass(slots=True)
class Attempt:
    """One way of placing a group: what lands where, what the modules lack, and what keeps it from being done."""

    what: str
    landed: list[Landing] = field(default_factory=list)
    placed: list[Cut] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # by parameter
    obstacle: Outcome | None = None

    @property
    def outcome(self) -> Outcome:
        if self.obstacle is not None:
            return self.obstacle._replace(landings=tuple(self.landed))
        if not self.landed:
            return Outcome(ABSENT, " and ".join(self.missing.values()))
        return Outcome(APPLIED, self.what, tuple(self.landed), self.missing)


def attempt(way: Sequence[Target], group: Recognised, weights: ModelWeights) -> Attempt:
    """Places all parameters of a group that has formulas in the modules of ``way``."""
    found = Attempt(group.reason)
    for parameter, form in group.forms.items():
        for target in bearers(way, parameter, weights):
            _place(found, target, parameter, form, group.formulas[parameter], weights)
    # Parts of a fused parameter that only some of the modules have would change what it means.
    found.placed = [cut for cut in found.placed if cut.parameter not in found.missing]
    found.landed = [landing for landing in found.landed if landing.parameter not in found.missing]
    return found


def bearers(way: Sequence[Target], parameter: str, weights: ModelWeights) -> Sequence[Target]:
    """The modules of ``way`` that take a parameter. Those that share the columns of a matrix add up to one bias,
    which the first that has any takes whole."""
    if parameter != "bias" or way[0].placement.axis == "rows":
        return way
    having = [target for target in way if weights.extent(target.number, "bias")] or way
    return [having[0]._replace(placement=WHOLE)]


def _place(found: Attempt, target: Target, parameter: str, form: Form, formula: Formula, weights: ModelWeights) -> None:
    extent = weights.extent(target.number, parameter)
    if extent is None:
        found.missing[parameter] = f"module '{target.module}' has no {parameter}"
        return
    here = landings(target, extent, form)
    geometry = weights.place(target.number, parameter)
    if isinstance(geometry, (Geometry, BranchPlace)):
        form = _seen_by(geometry, form, formula)
        here = landings(target, extent, form) if _same_kernel(geometry, formula) else None
    if here is None:
        wanted = expected(target, form, parameter, weights)
        found.obstacle = Outcome(MISFIT, f"{found.what}: its {parameter} is {_text(form)}, expected {wanted}")
        return
    found.landed += [landing._replace(parameter=parameter) for landing in here]
    if not isinstance(geometry, (Geometry, BranchPlace)):
        found.obstacle = found.obstacle or Outcome(UNSUPPORTED, f"module '{target.module}': {geometry}")
        return
    placed = [cut._replace(parameter=parameter) for cut in _cuts(target, geometry, form, formula)]
    obstacle = _obstacle(target, geometry, placed, form, formula)
    if obstacle:
        found.obstacle = found.obstacle or Outcome(UNSUPPORTED, f"module '{target.module}': {obstacle}")
    found.placed += placed


def _cuts(target: Target, geometry: Geometry | BranchPlace, form: Form, formula: Formula) -> list[Cut]:
    """One rectangle where a norm is taken over permuted rows: they are one matrix all the same."""
    return cuts(form, target.placement, geometry, together=formula.magnitude is not None)


def _seen_by(geometry: Geometry | BranchPlace, form: Form, formula: Formula) -> Form:
    """The form of the matrix beside this weight: input channels count the kernel's elements each, and values as stored
    lie as the model keeps them."""
    if formula.inputs is not None and len(geometry.shape) > 2:
        return form[0], geometry.cols if geometry.shape[1] == formula.inputs else formula.inputs
    return form


def _same_kernel(geometry: Geometry | BranchPlace, formula: Formula) -> bool:
    """False for a convolution's kernel that is another with as many elements. PEFT writes [3, 1] for Conv1d's [3]."""
    here, there = tuple(geometry.shape[2:]), formula.kernel
    if len(here) == len(there):
        return here == there
    return not here or not there or [n for n in here if n > 1] == [n for n in there if n > 1]


def _obstacle(target: Target, geometry: Geometry | BranchPlace, placed: list[Cut], form: Form, formula: Formula) -> str:
    """Why the formula cannot be carried out in this weight, or an empty text."""
    sectioned = not target.placement.is_whole
    if geometry.column_map is not None and target.placement.axis == "cols" and sectioned:
        return "sections of its input features are supported for plain memory order only"
    if formula.replaces and sectioned:
        return "a replaced parameter has to be all of a module's"
    if formula.inputs is not None and geometry.kernel > 1 and target.placement.axis == "cols" and sectioned:
        return "input channels of a convolution are not taken apart"
    if formula.magnitude is None:
        return ""
    by_rows = formula.magnitude.inputs is None
    for cut in placed:
        (begin, end), total = (cut.cols, form[1]) if by_rows else (cut.rows, form[0])
        if end - begin != total:
            axis = "input" if by_rows else "output"
            return f"DoRA's norm runs over all {total} {axis} features, of which it holds {end - begin}"
    return ""


def _text(form: Form) -> str:
    return str([("any" if side is None else side) for side in form])


def stored(group: Recognised, way: Sequence[Target], weights: ModelWeights) -> Recognised:
    """The group as transformers' Conv1D has it, where ``way`` leads to one: the values lie as it stores its weight."""
    if not any(formula.as_stored for formula in group.formulas.values()):
        return group
    if not any(weights.index.entry(target.number).transposed for target in way):
        return group
    forms, formulas = dict(group.forms), dict(group.formulas)
    for parameter, formula in group.formulas.items():
        if formula.as_stored and parameter == "weight":
            rows, cols = forms[parameter]
            forms[parameter] = cols, rows
            matrix = formula.matrix._replace(down=formula.matrix.down.transposed)
            formulas[parameter] = replace(formula, matrix=matrix)
    return replace(group, forms=forms, formulas=formulas)
