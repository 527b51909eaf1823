"""(IA)3: factors for a weight's rows or columns. It takes the weight itself."""

from __future__ import annotations

from .formula import BASE, Formula, Matrix, View
from .members import Malformed, Member, Members, floats
from .part import Part
from .recognised import Form
from .scaling import GroupScale

_INPUTS, _OUTPUTS = "columns multiplied", "rows multiplied"


def ia3(members: Members, scale: GroupScale) -> Part:
    """LyCORIS: W += W * weight, weight [out] or [in] (convolutions [1, n, 1, ...]); on_input, one integer, tells which.
    It starts from 0, PEFT's from 1."""
    flag, factors = members.get("on_input"), members.get("whole")
    if factors is None:
        raise Malformed(f"'{members.all[0].name}' has no weight beside it")
    if flag is None or flag.size != 1:
        raise Malformed(f"'{members.of('ia3')[0].name}': expected one element")
    size = _vector(factors)
    on_input = bool(scale.scaling.flags[flag.tensor])
    view = View(factors.tensor, 0, 1) if on_input else View(factors.tensor, 1, 0)
    formula = Formula(1.0, Matrix(view), BASE, inputs=size if on_input else None)
    return _part("ia3", size, on_input, formula)


def ia3_peft(members: Members, scale: GroupScale) -> Part:
    """PEFT: W *= ia3_l, [out, 1] or [1, in]. For convolutions [1, n, 1, ...], where only the configuration tells."""
    factors = members.factor("ia3", 2, 3, 4, 5)
    size = _vector(factors)
    if len(factors.shape) > 2:
        return Part("ia3_peft", (None, None), detail="feedforward_modules tell whether rows or columns are multiplied")
    return _part("ia3_peft", size, factors.shape[0] == 1)


def _part(algorithm: str, size: int, on_input: bool, formula: Formula | None = None) -> Part:
    form: Form = (None, size) if on_input else (size, None)
    return Part(algorithm, form, detail=_INPUTS if on_input else _OUTPUTS, formula=formula)


def _vector(member: Member) -> int:
    floats(member, 1, 2, 3, 4, 5)
    if member.size not in member.shape:
        raise Malformed(f"'{member.name}' has shape {list(member.shape)}, expected a vector")
    return member.size
