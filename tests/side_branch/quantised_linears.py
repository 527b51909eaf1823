"""Linear layers as other libraries quantise them, all of which compute on the CPU."""

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy
import pytest
import torch
from torch import nn

SHAPES = {"first": (192, 128), "second": (64, 128), "third": (128, 64)}  # rows and columns; the second has no bias


class Beside(nn.Module):
    """Linears that do not follow one another, so that each is seen by itself."""

    def forward(self, x):
        """x [..., 128] -> {name: [..., rows]}."""
        return {name: layer(x[..., : SHAPES[name][1]]) for name, layer in self.named_children()}


def dense(dtype):
    """What gets quantised, the same every time."""
    generator = torch.Generator().manual_seed(17)
    model = Beside()
    for name, (rows, cols) in SHAPES.items():
        layer = nn.Linear(cols, rows, bias=name != "second", dtype=dtype).requires_grad_(False)
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * cols**-0.5)
        model.add_module(name, layer)
    return model


def _torchao(make):
    def quantised(dtype):
        quantization = pytest.importorskip("torchao.quantization")
        model = dense(dtype)
        quantization.quantize_(model, make(quantization))
        return model

    return quantised


def _quanto(weights):
    def quantised(dtype):
        quanto = pytest.importorskip("optimum.quanto")
        _unpack_without_compiling()
        model = dense(dtype)
        quanto.quantize(model, weights=getattr(quanto, weights))
        quanto.freeze(model)
        return model.requires_grad_(False)

    return quantised


def _unpack_without_compiling():
    """quanto builds a C++ extension for this where nothing keeps it from doing so."""
    extension = importlib.import_module("optimum.quanto.library.extensions.cpp").ext
    extension._lib = SimpleNamespace(
        unpack=lambda packed, bits: torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)])
    )


def _bitsandbytes(kind, **more):
    def quantised(dtype):
        layers = pytest.importorskip("bitsandbytes").nn
        model, plain = Beside(), dense(dtype)
        for name, (rows, cols) in SHAPES.items():
            computing = {} if kind == "Linear8bitLt" else {"compute_dtype": dtype}
            layer = getattr(layers, kind)(cols, rows, bias=name != "second", **computing, **more).to(dtype)
            layer.load_state_dict(plain.get_submodule(name).state_dict())
            model.add_module(name, layer)
        return model.requires_grad_(False).to("cpu")  # quantises

    return quantised


def _gguf(form):
    def quantised(dtype):
        gguf = pytest.importorskip("gguf")
        diffusers = pytest.importorskip("diffusers.quantizers.gguf.utils")
        wanted = getattr(gguf.GGMLQuantizationType, form)
        model = Beside()
        for name, layer in dense(dtype).named_children():
            packed = gguf.quants.quantize(layer.weight.float().numpy(), wanted).view(numpy.uint8).copy()
            made = diffusers.GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, dtype)
            made.weight = diffusers.GGUFParameter(torch.from_numpy(packed), quant_type=wanted)
            made.bias = layer.bias
            model.add_module(name, made)
        return model

    return quantised


def _layerwise_casting(dtype):
    hooks = pytest.importorskip("diffusers.hooks")
    model = dense(dtype)
    hooks.apply_layerwise_casting(model, storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return model


class Kind(NamedTuple):
    """``make(dtype)`` gives a model that computes in ``dtype``. ``silent`` are the layers that do not tell this dtype:
    their branches take that of the first file."""

    make: Callable
    silent: tuple = ()

    def branch_dtypes(self, dtype, of_file):
        return {name: of_file if name in self.silent else dtype for name in SHAPES}


KINDS = {
    "torchao int8": Kind(_torchao(lambda q: q.Int8WeightOnlyConfig())),
    "torchao int8 both": Kind(_torchao(lambda q: q.Int8DynamicActivationInt8WeightConfig())),
    "torchao int4": Kind(
        _torchao(lambda q: q.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=q.PerGroup(32)))
    ),
    "torchao float8": Kind(_torchao(lambda q: q.Float8WeightOnlyConfig())),
    "quanto int8": Kind(_quanto("qint8")),
    "quanto int4": Kind(_quanto("qint4")),
    "quanto float8": Kind(_quanto("qfloat8")),
    "bitsandbytes int8": Kind(_bitsandbytes("Linear8bitLt", has_fp16_weights=False), silent=("second",)),
    "bitsandbytes nf4": Kind(_bitsandbytes("Linear4bit", quant_type="nf4")),
    "bitsandbytes fp4": Kind(_bitsandbytes("Linear4bit", quant_type="fp4")),
    "gguf q8_0": Kind(_gguf("Q8_0")),
    "gguf q4_0": Kind(_gguf("Q4_0")),
    "layerwise casting": Kind(_layerwise_casting, silent=tuple(SHAPES)),
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
