"""What an adapter's tensors make of a layer, by the algorithms' publications and the formulas of who trains them.

Nothing in here is lora_mmap's: it reads tensors by the endings of their keys, and knows nothing of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .sums import Array, Sum, exact, given, scale

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What PEFT keeps in a configuration and not among the tensors; ``rank`` is of whole LoKr factors only."""

    alpha: float | None = None
    rank: int | None = None
    rslora: bool = False


NO_SETTINGS = Settings()


@dataclass(frozen=True)
class Layer:
    """The pristine parameters of a layer. ``transposed``: the weight is [in, out], as in transformers' Conv1D."""

    parameters: Mapping[str, Tensor]
    transposed: bool = False

    @property
    def weight(self) -> Array:
        weight = exact(self.parameters["weight"])
        return weight.T if self.transposed else weight

    @property
    def is_float64(self) -> bool:
        return self.parameters["weight"].dtype == torch.float64


@dataclass(frozen=True)
class Use:
    """One adapter on one layer: its tensors by the ending of their keys, and the strength it is used with."""

    tensors: Tensors
    strength: float = 1.0
    settings: Settings = NO_SETTINGS


def composed(layer: Layer, uses: Sequence[Use]) -> dict[str, tuple[Array, Sum]]:
    """For every parameter that changes: what it starts from (its pristine value, or what it is replaced by), and the
    sum of all that is added to it."""
    replaced: dict[str, Tensor] = {}
    for use in uses:
        replaced |= _replaced(layer, use)
    start = Layer({**layer.parameters, **replaced}, layer.transposed)
    added: dict[str, Sum] = {}
    for use in uses:
        for name, change in changes(start, use).items():
            added[name] = added[name] + change if name in added else change
    found = {}
    for name in {**replaced, **added}:
        first = exact(start.parameters[name])
        nothing = Sum(np.zeros_like(first), np.zeros_like(first), 0)
        found[name] = (first, added.get(name, nothing))
    return found


def changes(layer: Layer, use: Use) -> dict[str, Sum]:
    """What one adapter adds to each parameter, in the parameter's own shape."""
    tensors, found = _by_role(use.tensors), {}
    weight = _of_weight(layer, tensors, use)
    if weight is not None:
        found["weight"] = weight.T if layer.transposed else weight
    if "up_bias" in tensors:
        found["bias"] = given(tensors["up_bias"]) * scale(use.strength * _lora_scale(tensors, use.settings))
    for role, name in (("diff_b", "bias"), ("diff_m", "modulation")):
        if role in tensors:
            found[name] = given(tensors[role]).reshape(*layer.parameters[name].shape) * scale(use.strength)
    return found


def _replaced(layer: Layer, use: Use) -> dict[str, Tensor]:
    """``set_weight``, and the ``.scale`` of BFL's control LoRAs: rounded to the dtype of the parameter, whose place as
    the pristine one it takes."""
    endings = {"set_weight": "weight", "scale": "scale"}
    return {
        name: use.tensors[ending].to(layer.parameters[name].dtype).reshape(layer.parameters[name].shape)
        for ending, name in endings.items()
        if ending in use.tensors
    }


def _of_weight(layer: Layer, tensors: Tensors, use: Use) -> Sum | None:
    """The change of the weight, [out, in, *kernel] or [entries, dim]."""
    algorithm = next((make for role, make in _ALGORITHMS.items() if role in tensors), None)
    if algorithm is None:
        return None
    pristine = layer.weight
    if "ia3" in tensors:
        return _ia3(pristine, tensors) * scale(use.strength)
    change, own = algorithm(tensors, use.settings)
    own *= float(tensors["scalar"].double()) if "scalar" in tensors else 1.0  # trained by old LyCORIS
    if "diff" in tensors and layer.transposed:  # a difference of the parameter, laid out as it is
        change = change.T
    change = change.reshape(*pristine.shape)
    if "dora_scale" in tensors:  # LyCORIS and those who read its files: the strength takes a part of the way
        whole = decomposed(layer, change * scale(own), tensors["dora_scale"], _dora_axes(pristine, tensors))
        return whole * scale(use.strength)
    if "magnitude_vector" in tensors:  # PEFT: the strength is in the scale of what changes the direction
        axes = (0,) if "embedding_up" in tensors else tuple(range(1, pristine.ndim))
        return decomposed(layer, change * scale(use.strength * own), tensors["magnitude_vector"], axes)
    return change * scale(use.strength * own)


def decomposed(layer: Layer, change: Sum, magnitude: Tensor, axes: tuple[int, ...]) -> Sum:
    """DoRA (arXiv 2402.09353, eq. 5): ``m * V / ||V|| - W0`` with ``V = W0 + change``, the norm taken over ``axes``.

    One rounding more for V, for m / ||V|| and for the last fma each. What V's error does to the norm, at most
    ``|| |W0| + |change| || / ||V||`` times as much as to an element, is in the magnitude. The norm's own sum is one of
    float64 and shows in float64 weights only.
    """
    pristine = layer.weight
    summed = math.prod(pristine.shape[axis] for axis in axes) if layer.is_float64 else 0
    direction, size = pristine + change.value, np.abs(pristine) + change.magnitude
    norm = np.sqrt((direction**2).sum(axis=axes, keepdims=True))
    shape = [1 if axis in axes else extent for axis, extent in enumerate(pristine.shape)]
    safe = np.where(norm == 0, 1, norm)
    factor = np.where(norm == 0, 0, exact(magnitude).reshape(shape) / safe)
    spread = np.sqrt((size**2).sum(axis=axes, keepdims=True)) / safe
    terms = np.abs(factor) * (size + np.abs(direction) * spread) + np.abs(pristine)
    return Sum(factor * direction - pristine, terms, change.roundings + summed // 2 + 3)


def _dora_axes(pristine: Array, tensors: Tensors) -> tuple[int, ...]:
    """``dora_scale`` [out, 1, ...] or [out]: a norm for every row; [1, in, 1, ...]: one for every input channel."""
    shape = tuple(tensors["dora_scale"].shape)
    if shape[0] == pristine.shape[0] and math.prod(shape) == shape[0]:
        return tuple(range(1, pristine.ndim))
    if shape[:2] != (1, pristine.shape[1]) or math.prod(shape) != pristine.shape[1]:
        raise ValueError(f"a magnitude {shape} fits no axis of a weight {pristine.shape}")
    return (0, *range(2, pristine.ndim))


def _alpha_over(rank: int, tensors: Tensors, settings: Settings) -> float:
    if "alpha" in tensors:
        return float(tensors["alpha"].double()) / rank
    if settings.alpha is None:
        return 1.0
    return settings.alpha / (math.sqrt(rank) if settings.rslora else rank)


def _lora_scale(tensors: Tensors, settings: Settings) -> float:
    return _alpha_over(tensors["down"].shape[0], tensors, settings)


def _lora(tensors: Tensors, settings: Settings) -> tuple[Sum, float]:
    up, down = given(tensors["up"].flatten(1)), tensors["down"]
    if "mid" in tensors:
        return up @ _tucker(given(tensors["mid"]), given(down.flatten(1))), _lora_scale(tensors, settings)
    return up @ given(down.flatten(1)), _lora_scale(tensors, settings)


def _embedding(tensors: Tensors, settings: Settings) -> tuple[Sum, float]:
    """PEFT: A [rank, entries], B [dim, rank]; the weight is [entries, dim]."""
    down, up = given(tensors["embedding_down"]), given(tensors["embedding_up"])
    return down.T @ up.T, _alpha_over(tensors["embedding_down"].shape[0], tensors, settings)


def _tucker(core: Sum, down: Sum) -> Sum:
    """[r, j, *kernel] and [j, in] to [r, in * kernel]."""
    rank, inner = core.value.shape[:2]
    return Sum(
        np.einsum("rj...,ji->ri...", core.value, down.value).reshape(rank, -1),
        np.einsum("rj...,ji->ri...", core.magnitude, down.magnitude).reshape(rank, -1),
        core.roundings + down.roundings + inner,
    )


def _loha(tensors: Tensors, settings: Settings) -> tuple[Sum, float]:
    """FedPara (arXiv 2108.06098): the Hadamard product of two low-rank products, each in Tucker form where it has a
    core ([rank, rank, *kernel]; then a is [rank, out])."""
    halves = []
    for number in (1, 2):
        a, b = given(tensors[f"w{number}_a"]), given(tensors[f"w{number}_b"])
        core = tensors.get(f"t{number}")
        halves.append(a @ b if core is None else a.T @ _tucker(given(core), b))
    return halves[0] * halves[1], _alpha_over(tensors["w1_b"].shape[0], tensors, settings)


def _lokr(tensors: Tensors, settings: Settings) -> tuple[Sum, float]:
    """kron(w1, w2). alpha / rank; of two whole factors LyCORIS ignores alpha, PEFT goes by its configuration."""
    blocks = []
    for name in ("k1", "k2"):
        if name in tensors:
            blocks.append(given(tensors[name].flatten(1)))
            continue
        a, b = given(tensors[f"{name}_a"]), given(tensors[f"{name}_b"])
        core = tensors.get(f"{name}_t")
        blocks.append(a @ b if core is None else a.T @ _tucker(given(core), b))
    rank = next((tensors[name].shape[0] for name in ("k2_b", "k1_b") if name in tensors), None)
    if rank is None and ("alpha" in tensors or settings.rank is None):
        return blocks[0].kron(blocks[1]), 1.0
    return blocks[0].kron(blocks[1]), _alpha_over(rank or settings.rank or 1, tensors, settings)


def _whole(tensors: Tensors, settings: Settings) -> tuple[Sum, float]:
    return given(tensors["diff"]), 1.0


def _ia3(pristine: Array, tensors: Tensors) -> Sum:
    """(IA)3 as LyCORIS has it: W0 * w, w [out] or [in]; ``on_input`` tells which."""
    side = 1 if bool(tensors["on_input"]) else 0
    factors = exact(tensors["ia3"]).reshape([-1 if axis == side else 1 for axis in range(pristine.ndim)])
    value = pristine * factors
    return Sum(value, np.abs(value), 1)


_ALGORITHMS: dict[str, Callable[[Tensors, Settings], tuple[Sum, float]]] = {
    "down": _lora,
    "embedding_down": _embedding,
    "w1_a": _loha,
    "k1": _lokr,
    "k1_a": _lokr,
    "diff": _whole,
    "ia3": _whole,  # takes the weight itself, see _of_weight
}

_ROLES = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A": "down",
    "lora_B": "up",
    "lora_B.bias": "up_bias",
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_embedding_A": "embedding_down",
    "lora_embedding_B": "embedding_up",
    "lora_magnitude_vector": "magnitude_vector",
    "lora_magnitude_vector.weight": "magnitude_vector",
    "dora_scale": "dora_scale",
    "alpha": "alpha",
    **{f"hada_w{n}_{side}": f"w{n}_{side}" for n in (1, 2) for side in "ab"},
    **{f"hada_t{n}": f"t{n}" for n in (1, 2)},
    **{f"lokr_w{n}": f"k{n}" for n in (1, 2)},
    **{f"lokr_w{n}_{side}": f"k{n}_{side}" for n in (1, 2) for side in "ab"},
    "lokr_t2": "k2_t",
    "diff": "diff",
    "diff_b": "diff_b",
    "diff_m": "diff_m",
    "w_norm": "diff",
    "b_norm": "diff_b",
    "weight": "ia3",
    "on_input": "on_input",
    "scalar": "scalar",
}


def _by_role(tensors: Tensors) -> dict[str, Tensor]:
    """By what they are. Endings that nobody here knows are an error: a reference must not overlook a tensor."""
    known = {_ROLES[ending]: tensor for ending, tensor in tensors.items() if ending in _ROLES}
    unknown = tensors.keys() - _ROLES.keys() - {"set_weight", "scale"}
    if unknown:
        raise ValueError(f"no formula for {sorted(unknown)}")
    return known
