"""Tensors of every algorithm for a weight of any shape, as trainers lay them out, filled at random."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

RANK, ALPHA = 4, 3.0


class Filled:
    """Makes tensors: every value from one generator, then rounded to a dtype."""

    def __init__(self, dtype, seed=0, size=0.3):
        self._generator = torch.Generator().manual_seed(seed)
        self.dtype, self._size = dtype, size

    def __call__(self, *shape):
        return (torch.randn(shape, generator=self._generator) * self._size).to(self.dtype)

    def magnitude(self, *shape):
        """Positive, of the size of a norm."""
        return (torch.rand(shape, generator=self._generator) + 0.5).to(self.dtype)


def alpha(value=ALPHA):
    return {"alpha": torch.tensor(value)}


def is_matrix(shape):
    return len(shape) >= 2


def has_kernel(shape):
    return math.prod(shape[2:]) > 1


def is_vector(shape):
    return len(shape) == 1


def lora(shape, filled, rank=RANK):
    ones = [1] * len(shape[2:])
    return {"lora_down.weight": filled(rank, *shape[1:]), "lora_up.weight": filled(shape[0], rank, *ones)} | alpha()


def peft(shape, filled, rank=RANK):
    pair = lora(shape, filled, rank)
    return {"lora_A.weight": pair["lora_down.weight"], "lora_B.weight": pair["lora_up.weight"]}


def locon_tucker(shape, filled):
    out, inputs, *kernel = shape
    ones = [1] * len(kernel)
    return {
        "lora_down.weight": filled(RANK, inputs, *ones),
        "lora_mid.weight": filled(RANK, RANK, *kernel),
        "lora_up.weight": filled(out, RANK, *ones),
    } | alpha()


def loha(shape, filled):
    columns = math.prod(shape[1:])
    return {
        "hada_w1_a": filled(shape[0], RANK),
        "hada_w1_b": filled(RANK, columns),
        "hada_w2_a": filled(shape[0], RANK + 1),  # the halves need not have one rank; the first one's divides alpha
        "hada_w2_b": filled(RANK + 1, columns),
    } | alpha()


def loha_tucker(shape, filled):
    out, inputs, *kernel = shape
    halves = ({f"hada_w{n}_a": (RANK, out), f"hada_w{n}_b": (RANK, inputs), f"hada_t{n}": (RANK, RANK)} for n in (1, 2))
    return {
        name: filled(*size, *(kernel if "_t" in name else ())) for half in halves for name, size in half.items()
    } | alpha()


def lokr(shape, filled, w1="whole", w2="factored"):
    out, inputs, *kernel = shape
    (o1, o2), (i1, i2) = _split(out), _split(inputs)
    tensors = {}
    if w1 == "whole":
        tensors["lokr_w1"] = filled(o1, i1)
    else:
        tensors |= {"lokr_w1_a": filled(o1, 1), "lokr_w1_b": filled(1, i1)}
    if w2 == "whole":
        tensors["lokr_w2"] = filled(o2, i2, *kernel)
    elif w2 == "tucker":
        tensors |= {
            "lokr_t2": filled(RANK, RANK, *kernel),
            "lokr_w2_a": filled(RANK, o2),
            "lokr_w2_b": filled(RANK, i2),
        }
    else:
        tensors |= {"lokr_w2_a": filled(o2, RANK), "lokr_w2_b": filled(RANK, i2 * math.prod(kernel))}
    return tensors | alpha()


def _split(size):
    return (2, size // 2) if size % 2 == 0 else (1, size)


def full(shape, filled):
    return {"diff": filled(*shape), "diff_b": filled(shape[0])}


def norm(shape, filled):
    return {"w_norm": filled(*shape), "b_norm": filled(*shape)}


def ia3(shape, filled, on_input):
    size = shape[1] if on_input else shape[0]
    factors = filled(1, size, *[1] * len(shape[2:])) if len(shape) > 2 else filled(size)
    return {"weight": factors, "on_input": torch.tensor(int(on_input))}


def with_row_norms(make):
    def tensors(shape, filled):
        return make(shape, filled) | {"dora_scale": filled.magnitude(shape[0], *[1] * (len(shape) - 1))}

    return tensors


def with_input_norms(make):
    def tensors(shape, filled):
        return make(shape, filled) | {"dora_scale": filled.magnitude(1, shape[1], *[1] * len(shape[2:]))}

    return tensors


def peft_dora(shape, filled):
    magnitude = filled.magnitude(*((1, shape[0], *[1] * len(shape[2:])) if len(shape) > 2 else (shape[0],)))
    return peft(shape, filled) | {"lora_magnitude_vector": magnitude}


def embedding(shape, filled):
    return {"lora_embedding_A": filled(RANK, shape[0]), "lora_embedding_B": filled(shape[1], RANK)}


@dataclass(frozen=True)
class Algorithm:
    """``tensors(shape, filled)`` for layers whose weight, [out, in, *kernel], ``fits``; embeddings have their own.
    ``of_conv1d``: transformers' Conv1D, which no trainer of whole differences beside other tensors takes."""

    tensors: Callable
    fits: Callable = is_matrix
    of_embeddings: bool = False
    of_conv1d: bool = True


def _only_diff(shape, filled):
    return {"diff": filled(*shape)}


ALGORITHMS = {
    "LoRA": Algorithm(lora),
    "LoRA and a trained bias": Algorithm(lambda s, f: peft(s, f) | {"lora_B.bias": f(s[0])}),
    "LoRA and the difference of a bias": Algorithm(lambda s, f: lora(s, f) | {"diff_b": f(s[0])}),
    "LoCon in Tucker form": Algorithm(locon_tucker, has_kernel),
    "LoRA and a trained scalar": Algorithm(lambda s, f: lora(s, f) | {"scalar": torch.tensor(0.7)}),
    "LoHa": Algorithm(loha),
    "LoHa in Tucker form": Algorithm(loha_tucker, has_kernel),
    "LoKr": Algorithm(lokr),
    "LoKr, both factored": Algorithm(lambda s, f: lokr(s, f, "factored", "factored")),
    "LoKr, w1 factored": Algorithm(lambda s, f: lokr(s, f, "factored", "whole")),
    "LoKr, both whole": Algorithm(lambda s, f: lokr(s, f, "whole", "whole")),
    "LoKr in Tucker form": Algorithm(lambda s, f: lokr(s, f, "whole", "tucker"), has_kernel),
    "LoKr, w1 factored, in Tucker form": Algorithm(lambda s, f: lokr(s, f, "factored", "tucker"), has_kernel),
    "full difference": Algorithm(_only_diff),
    "full difference of weight and bias": Algorithm(full, of_conv1d=False),
    "normalisation": Algorithm(norm, is_vector),
    "(IA)3, rows": Algorithm(lambda s, f: ia3(s, f, False)),
    "(IA)3, columns": Algorithm(lambda s, f: ia3(s, f, True)),
    "DoRA, rows": Algorithm(with_row_norms(lora)),
    "DoRA, input channels": Algorithm(with_input_norms(lora)),
    "DoRA of PEFT": Algorithm(peft_dora),
    "DoRA over LoCon in Tucker form, rows": Algorithm(with_row_norms(locon_tucker), has_kernel),
    "DoRA over LoHa, rows": Algorithm(with_row_norms(loha)),
    "DoRA over LoHa, input channels": Algorithm(with_input_norms(loha)),
    "DoRA over LoKr, rows": Algorithm(with_row_norms(lokr)),
    "DoRA over LoKr, input channels": Algorithm(with_input_norms(lokr)),
    "DoRA over a full difference, rows": Algorithm(with_row_norms(_only_diff), of_conv1d=False),
    "embedding": Algorithm(embedding, of_embeddings=True),
    "DoRA of PEFT on an embedding": Algorithm(
        lambda s, f: embedding(s, f) | {"lora_magnitude_vector": f.magnitude(s[1])}, of_embeddings=True
    ),
}
