"""Composes adapters of made-up tensors and holds every parameter of the model against the reference."""

import copy

import torch
from torch import nn

import lora_mmap
from bench.accuracy.error import measure
from bench.accuracy.layers import layers
from bench.accuracy.reference import Use, composed
from bench.accuracy.specimens import layer_of

try:
    from transformers.pytorch_utils import Conv1D
except ImportError:
    Conv1D = None

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def every_layer(dtype=torch.float32, channels_last=False):
    """Linear, convolutions of one to three dimensions, 1x1, an embedding, norms, and transformers' Conv1D if it is
    there. Widths are even, as the Kronecker products here are split in two."""
    model = layers()
    if Conv1D is not None:
        torch.manual_seed(1)
        model.turned = Conv1D(26, 10)
        nn.init.normal_(model.turned.weight)
        nn.init.normal_(model.turned.bias)
    model = model.to(dtype)
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if channels_last and weight is not None and weight.dim() in _LAST:
            weight.data = weight.data.to(memory_format=_LAST[weight.dim()])
    return model


def shape_of(module):
    """[out, in, *kernel], however the layer keeps it."""
    shape = tuple(module.weight.shape)
    return shape[::-1] if type(module).__name__ == "Conv1D" else shape


def tensors_for(model, algorithm, filled, only=None):
    """An adapter of one algorithm on every layer that it is for; keys are the model's own names."""
    tensors = {}
    for name, module in model.named_children():
        turned = type(module).__name__ == "Conv1D"
        fits = isinstance(module, nn.Embedding) == algorithm.of_embeddings and algorithm.fits(shape_of(module))
        if fits and (algorithm.of_conv1d or not turned) and (only is None or name in only):
            own = algorithm.tensors(shape_of(module), filled)
            if "diff" in own and turned:
                own["diff"] = own["diff"].t()  # a whole parameter, as the layer keeps it
            tensors |= {f"{name}.{ending}": value.contiguous() for ending, value in own.items()}
    assert tensors
    return tensors


def uses_of(tensors, strength, settings=None):
    """{module: Use} of an adapter whose keys begin with the names of children of the model."""
    found = {}
    for key, value in tensors.items():
        module, _, ending = key.partition(".")
        found.setdefault(module, {})[ending] = value
    return {module: Use(own, strength, *([settings] if settings else [])) for module, own in found.items()}


def assert_composed(model, pristine, adapters):
    """Every parameter that one of ``adapters`` (lists of {module: Use}) changes is within the contract's bound, and all
    others have the bytes they had. Returns the names of those that changed."""
    expected = {}
    for name, _ in model.named_modules():
        uses = [adapter[name] for adapter in adapters if name in adapter]
        if uses:
            found = composed(layer_of(pristine, name), uses)
            expected |= {f"{name}.{parameter}": value for parameter, value in found.items()}
    for name, parameter in model.named_parameters():
        if name not in expected:
            assert same_bytes(parameter, pristine.get_parameter(name)), name
            continue
        error = measure(parameter, *expected[name])
        assert error.of_bound <= 1, f"{name}: {error.of_bound:.3g} of the bound, {error.ulps:.3g} ulp"
    return set(expected)


def compose_and_hold(model, entries, **options):
    """Composes [(tensors, strength)], holds the result against the reference, and takes it out again bit for bit."""
    pristine = copy.deepcopy(model)
    report = lora_mmap.compose(model, entries, strict=True, **options)
    assert report.applied
    changed = assert_composed(model, pristine, [uses_of(tensors, strength) for tensors, strength in entries])
    assert any(not same_bytes(model.get_parameter(name), pristine.get_parameter(name)) for name in changed)
    assert lora_mmap.reset(model)
    assert_same_bytes(model, pristine)
    return report


def assert_same_bytes(model, pristine):
    for name, parameter in model.named_parameters():
        assert same_bytes(parameter, pristine.get_parameter(name)), name


def same_bytes(one, other):
    return one.dtype == other.dtype and torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
