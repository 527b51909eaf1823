"""Adapters of every kind for the model of undo_models.py."""

import torch
from adapter_tensors import factors, keyed
from every_algorithm import ALGORITHMS, Filled

ATTENTION = "transformer_blocks.0.attn."
# Those that PEFT can merge as they are: factor pairs on whole Linears, convolutions and embeddings.
PLAIN = (0, 1, 2)


def pairs(model, modules, seed, dtype, size, rank=4, **more):
    found = {}
    for position, name in enumerate(modules):
        part = name.startswith(ATTENTION) and not name.endswith("qkv")  # a third of the rows of the fused projection
        shape = (20, 20) if part else tuple(model.get_submodule(name).weight.shape)
        inner = shape[1] if len(shape) == 2 else shape[1:]
        found[name] = factors(shape[0], inner, rank, 100 * seed + position, dtype, size)
    return keyed(found, **more)


def embedding(model, seed, dtype, size, rank=4):
    down, up = factors(*model.table.weight.shape, rank, seed, dtype, size)
    return {"table.lora_embedding_A": up.t().contiguous(), "table.lora_embedding_B": down.t().contiguous()}


def of(algorithm, model, name, seed, dtype=torch.float32, size=0.05):
    """The tensors of one module for an algorithm of tests/algorithms/every_algorithm.py."""
    shape = tuple(model.get_submodule(name).weight.shape)
    made = ALGORITHMS[algorithm].tensors(shape, Filled(dtype, seed, size))
    return {f"{name}.{ending}": value.contiguous() for ending, value in made.items()}


def adapters_for(model):
    """Dicts of tensors. Their deltas go from a thousandth of a weight's norm to many times it."""
    half, brain, full = torch.float16, torch.bfloat16, torch.float32
    whole = ["wide", "tall", "conv", "last", "point"]
    return [
        pairs(model, whole, 1, half, 0.05) | embedding(model, 1, half, 0.1),
        pairs(model, ["wide", "conv", "last"], 2, brain, 0.005, alpha=3),
        pairs(model, ["tall", "point", "plain"], 3, full, 0.2) | embedding(model, 3, full, 0.02),
        pairs(model, [ATTENTION + "to_q", ATTENTION + "to_v", "tied"], 4, half, 0.1),
        pairs(model, [ATTENTION + "to_k", "wide"], 5, full, 0.1) | {"wide.diff_b": torch.randn(53) / 9},
        of("LoHa", model, "wide", 6, brain) | of("LoHa in Tucker form", model, "last", 6),
        of("LoKr", model, "tall", 7) | of("LoKr in Tucker form", model, "conv", 7, half),
        of("full difference of weight and bias", model, "conv", 8) | of("full difference", model, "point", 8, half),
        of("DoRA of PEFT", model, "plain", 9) | pairs(model, ["wide"], 9, brain, 0.05),
        of("(IA)3, rows", model, "tall", 10) | of("(IA)3, columns", model, "plain", 10),
        of("normalisation", model, "norm", 11, half) | pairs(model, [ATTENTION + "to_qkv"], 11, brain, 0.05),
        pairs(model, ["wide", "tall", "conv"], 12, full, 1.5, 8),
    ]


def overflowing(model):
    """One good pair, then one whose sum is no finite number in any dtype."""
    tensors = pairs(model, ["wide", "plain"], 13, torch.float32, 0.1)
    tensors["plain.lora_B.weight"][:] = 3e30
    tensors["plain.lora_A.weight"][:] = 3e30
    return tensors
