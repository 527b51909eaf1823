"""Adapters in the model of int8_linears.py, and what it has to compute with them."""

import torch
from int8_linears import SHAPES, Model, in_float64, inputs
from side_adapters import make

import lora_mmap

X = inputs()
BESIDE = {name: SHAPES[name] for name in ("first", "inner.second")}


def composed(model, entries):
    lora_mmap.compose(model, [(made.path, strength) for made, strength in entries], strict=True)
    return model


def assert_computes(model, entries, tolerance=1e-4):
    assert_close(model(X.to(model.first.scale.dtype)), entries, tolerance)


def assert_close(found, entries, tolerance=1e-4):
    torch.testing.assert_close(found.double(), in_float64(Model(), entries, X), rtol=tolerance, atol=tolerance)


def scaled(entries, multiplier):
    return [(made, strength * multiplier) for made, strength in entries]


def adapters(folder):
    """(adapter, strength) on the two quantised linears."""
    return [
        (make(folder, BESIDE, 1, rank=12, alpha=6.0, size=0.3), 1.0),
        (make(folder, BESIDE, 2, rank=5, alpha=None, size=0.3), -0.5),
    ]
