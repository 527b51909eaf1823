"""Models with the names of real ones at a reduced width, and what composing does to their weights."""

from collections.abc import Mapping

import torch
from stand_ins import holding
from torch import nn

import lora_mmap

H = 6  # what stands for a model's width; no multiple of anything else here but itself


def model_of(shapes: Mapping[str, tuple[int, ...]], **parameters: tuple[int, ...]) -> nn.Module:
    """A model in float64. A path with (out, in) is a Linear without bias, one with (n,) a norm's weight; a shape of
    more than two dimensions is a convolution's. ``parameters`` (``__`` for a dot) are parameters of their own."""
    generator = torch.Generator().manual_seed(len(shapes))
    named = {f"{path}.weight": shape for path, shape in shapes.items()}
    named |= {path.replace("__", "."): shape for path, shape in parameters.items()}
    return holding(
        {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in named.items()}
    )


def composed(model: nn.Module, tensors: Mapping[str, torch.Tensor], strength: float = 1.0, **options: object):
    """({module: what was added to its weight}, the report's keys), every key applied."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = lora_mmap.compose(model, [(dict(tensors), strength)], strict=True, **options)
    added = {name: value - before[name] for name, value in model.state_dict().items()}
    keys = report.to_dict()["keys"]
    assert {found["outcome"] for found in keys.values()} == {"applied"}
    assert keys.keys() == tensors.keys()
    return {name.removesuffix(".weight"): value for name, value in added.items()}, keys


def told(model: nn.Module, tensors: Mapping[str, torch.Tensor], **options: object):
    """The report's keys, nothing composed."""
    return lora_mmap.check(model, dict(tensors), **options).to_dict()["keys"]


def same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def where(verdict) -> list[tuple]:
    """(module, rows, cols, layout) of every target of a key."""
    return [(found["module"], found["rows"], found["cols"], found["layout"]) for found in verdict["targets"]]
