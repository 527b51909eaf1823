"""From the tensors of one group to the one algorithm that wrote them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..adapter import Group
from ..families.peft_tuners import PEFT_TUNERS
from ..families.riders import rider
from . import dora, glora, hadamard, ia3, kronecker, low_rank, orthogonal, whole
from .members import Malformed, Member, Members
from .part import Part
from .recognised import Form, Recognised, title
from .scaling import GroupScale, Scaling, finite

Reader = Callable[[Members, GroupScale], Part]

# Who reads the tensors that change a weight, by the algorithm of their suffix.
_WEIGHTS: dict[str, Reader] = {
    "lora": low_rank.lora,
    "embedding": low_rank.embedding,
    "nunchaku": low_rank.packed,
    "loha": hadamard.loha,
    "lokr": kronecker.lokr,
    "glora": glora.glora,
    "oft": orthogonal.oft,
    "oft_peft": orthogonal.oft_peft,
    "boft_peft": orthogonal.boft_peft,
    "ia3": ia3.ia3,
    "ia3_peft": ia3.ia3_peft,
    "tlora": low_rank.tlora,
    "full": whole.full,
    "norm": whole.full,
    "set": whole.replaced,
    "reshape": whole.reshaped,
}
# Tuners that add a tensor to LoRA's two.
_OVER_LORA: dict[str, Reader] = {"adalora": low_rank.adalora, "kasa": low_rank.kasa}
_TUNERS = {tuner.algorithm for tuner in PEFT_TUNERS} - _OVER_LORA.keys()
_ONLY_A_MODEL = {"whole", "original", "set"}


def recognise(scaling: Scaling, index: int, group: Group) -> Recognised:
    """What group ``index`` is, given that it is no plain low-rank pair. Reads no tensor but (IA)3's flags."""
    members = Members(scaling.adapter, group.members)
    try:
        return _alone(scaling, index, group, members) or _trained(scaling, index, group, members)
    except Malformed as error:
        return Recognised(index, "malformed", str(error))


def _alone(scaling: Scaling, index: int, group: Group, members: Members) -> Recognised | None:
    """Groups that no shape has to be checked of."""
    algorithms = {member.suffix.algorithm for member in members.all}
    tuners = algorithms & _TUNERS
    if tuners:
        algorithm = min(tuners)
        return Recognised(index, "unsupported", _unsupported(algorithm), algorithm)
    if "control_lora" in algorithms:
        return Recognised(index, "unsupported", _unsupported("control_lora"), "control_lora")
    if algorithms == {""}:
        return _only_alpha(scaling, index, group, members)
    if algorithms == {"original"}:
        return Recognised(index, "ignored", "PEFT's copy of the module as it was before training")
    if algorithms <= {"whole", "original"}:
        return _whole_weight(scaling, index, members)
    if algorithms <= _ONLY_A_MODEL and scaling.is_checkpoint:
        return _checkpoint(scaling, index)
    return None


def _only_alpha(scaling: Scaling, index: int, group: Group, members: Members) -> Recognised:
    if group.stem in scaling.loose_alphas and group.stem in scaling.adapter.named_groups:
        return Recognised(index, "ignored", "alpha of the module's named adapters")
    raise members.without_factors()


def _whole_weight(scaling: Scaling, index: int, members: Members) -> Recognised:
    why = rider(members.all[0].name)
    if why is not None:
        return Recognised(index, "ignored", why)
    if scaling.is_checkpoint:
        return _checkpoint(scaling, index)
    kept = [member for member in members.all if member.suffix.algorithm == "whole"]
    forms: dict[str, Form] = {m.suffix.parameter: m.flat if m.shape else (1, 1) for m in kept}
    return Recognised(index, "unsupported", _unsupported("whole"), "whole", forms=forms, detail=whole.REPLACED)


def _checkpoint(scaling: Scaling, index: int) -> Recognised:
    reason = (
        f"{scaling.adapter.label} is a full checkpoint: all of its {len(scaling.adapter)} tensors are a model's own, "
        "expected an adapter's; load it as a model, or extract a LoRA from it"
    )
    return Recognised(index, "unsupported", reason, "checkpoint")


def _trained(scaling: Scaling, index: int, group: Group, members: Members) -> Recognised:
    """A group that changes a module's parameters, each in its way."""
    members.reject_twins()
    alpha = members.get("alpha")
    scale = GroupScale(scaling, group, -1 if alpha is None else alpha.tensor)
    weight = _weight(members, scale)
    parts: dict[str, Part] = {}
    if weight is not None:
        parts[_weight_parameter(members)] = weight
    bias = whole.bias(members, weight)
    if bias is not None:
        parts["bias"] = bias
    modulation = members.get("diff_modulation")
    if modulation is not None:
        parts["modulation"] = replace(whole.added(modulation), algorithm="modulation")
    if not parts:
        raise members.without_factors()
    config = scale.config
    obstacle = config.obstacle if config and not (config.use_dora and "magnitude" in members) else ""
    return _together(index, parts, members, obstacle)


def _weight_parameter(members: Members) -> str:
    value = members.get("set")
    return value.suffix.parameter if value is not None else "weight"


def _weight(members: Members, scale: GroupScale) -> Part | None:
    algorithms = _weight_algorithms(members)
    over = [name for name in _OVER_LORA if members.of(name)]
    if over:
        part = _OVER_LORA[over[0]](members, scale)
    elif algorithms:
        part = _WEIGHTS[algorithms[0]](members, scale)
    elif "magnitude" in members or "scalar" in members:
        raise members.without_factors()
    else:
        return None
    if "scalar" in members:
        part = _multiplied(part, members["scalar"], scale)
    if "magnitude" in members:
        part = dora.decomposed(part, members)
    return part


def _multiplied(part: Part, scalar: Member, scale: GroupScale) -> Part:
    """Old LyCORIS: a trained scalar beside the factors."""
    factor = scale.scaling.flags.get(scalar.tensor)
    if factor is None:
        raise Malformed(f"'{scalar.name}' has shape {list(scalar.shape)}, expected one element")
    if part.scale is None or part.formula is None:
        return part
    value, source = finite(part.scale * factor, f"{part.scale_source}, times scalar")
    return replace(part, scale=value, scale_source=source, formula=replace(part.formula, scale=value))


def _weight_algorithms(members: Members) -> list[str]:
    """The algorithm that changes the weight, at most one; ``reshape`` prepares the weight for another."""
    found: dict[str, Member] = {}
    for member in members.all:
        algorithm = member.suffix.algorithm
        if algorithm in _WEIGHTS and member.suffix.parameter not in ("bias", "modulation"):
            found.setdefault(algorithm, member)
    if len(found) > 1:
        found.pop("reshape", None)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise Malformed(
            f"{first} is {title(one)}'s and {second} is {title(other)}'s, expected one algorithm for a weight"
        )
    return list(found)


# What else may lie in a group, by role, and who it makes the group one of: nobody we know how to fuse.
_EXTRAS = {"reshape": "reshape", "down_bias": "lora_bias", "whole": "whole"}


def _together(index: int, parts: dict[str, Part], members: Members, obstacle: str) -> Recognised:
    """What leads is the weight's algorithm, or, where that is plain LoRA, whatever keeps it from being a plain pair."""
    first = next(iter(parts.values()))
    algorithms = [part.algorithm for part in parts.values()]
    extras = [name for role, name in _EXTRAS.items() if role in members]
    if "on_input" in members:
        extras.remove("whole")  # the weight is (IA)3's own
    formulas = {parameter: part.formula for parameter, part in parts.items() if part.formula is not None}
    said = _named(*dict.fromkeys([*algorithms, *extras]), detail=first.detail)
    refusal = obstacle
    if extras or len(formulas) < len(parts):
        refusal = f"{said} is not supported yet"
    leading = next((name for name in [*algorithms, *extras] if name != "lora"), "lora")
    return Recognised(
        index,
        "unsupported" if refusal else "supported",
        refusal or said,
        leading,
        first.rank,
        first.scale,
        first.scale_source,
        {parameter: part.form for parameter, part in parts.items()},
        first.detail,
        {} if refusal else formulas,
    )


def _unsupported(*algorithms: str) -> str:
    return f"{_named(*algorithms)} is not supported yet"


def _named(*algorithms: str, detail: str = "") -> str:
    titles = [title(algorithm) for algorithm in algorithms]
    if len(titles) > 1 and titles[0] == "LoRA" and titles[1].startswith("LoRA "):
        del titles[0]
    return f"{', with '.join(titles)}{f' ({detail})' if detail else ''}"
