"""Every algorithm on a device: the CPU's bits, whatever order the device does things in, and the way back."""

import copy

import pytest
import torch
from composing import every_layer, tensors_for
from device_models import differing
from every_algorithm import ALGORITHMS, Filled

import lora_mmap

ORDERS = ["eager", "lazy", "random"]


@pytest.fixture
def twins(torch_side):
    """The same model on the fake device and on the CPU."""

    def make(dtype=torch.float32, channels_last=False):
        host = every_layer(dtype, channels_last)
        return torch_side.move(copy.deepcopy(host)), host

    return make


def compose_both(models, torch_side, adapters, **options):
    reports = [lora_mmap.compose(model, adapters, **options) for model in models]
    torch_side.synchronize()
    assert differing(*models) == []
    return reports


def reset_both(models, torch_side):
    for model in models:
        assert lora_mmap.reset(model)
    torch_side.synchronize()


def everything(model, dtype=torch.float16):
    """An adapter of each algorithm, in the order of the table."""
    return [(tensors_for(model, a, Filled(dtype, seed)), 0.5 - seed % 3) for seed, a in enumerate(ALGORITHMS.values())]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_each(twins, torch_side, fake_cuda, sha256, name, order):
    fake_cuda.mode(order, 7)
    models = twins(torch.float32 if order == "lazy" else torch.bfloat16, channels_last=order == "random")
    pristine = sha256(models[1])
    adapters = [(tensors_for(models[1], ALGORITHMS[name], Filled(torch.float16)), 0.7)]
    assert compose_both(models, torch_side, adapters, strict=True)[0].applied
    assert sha256(models[0]) != pristine
    reset_both(models, torch_side)
    assert sha256(models[0]) == sha256(models[1]) == pristine


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_all_in_one_composition(twins, torch_side, fake_cuda, sha256, order, dtype):
    """Terms of every kind on each weight, then others in their place, in windows of one weight."""
    from lora_mmap.cuda import device_stream

    fake_cuda.mode(order, 3)
    models = twins(dtype)
    pristine = sha256(models[1])
    adapters = everything(models[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_stream, "WINDOW_NBYTES", 1)
        compose_both(models, torch_side, adapters)
    compose_both(models, torch_side, [(tensors, -0.3) for tensors, _ in adapters[::2]])
    compose_both(models, torch_side, adapters[3:6], numerics="fast")
    reset_both(models, torch_side)
    assert sha256(models[0]) == sha256(models[1]) == pristine


@pytest.mark.parametrize("order", ORDERS)
def test_replaced_parameters(twins, torch_side, fake_cuda, sha256, order):
    """A value in the place of the weight; other terms add to it."""
    fake_cuda.mode(order, 5)
    models = twins(torch.float16)
    pristine = sha256(models[1])
    filled = Filled(torch.float32)
    linear = models[1].inner
    replaced = {"inner.set_weight": filled(*linear.weight.shape)}
    adapters = [(replaced, 0.4), (tensors_for(models[1], ALGORITHMS["LoHa"], filled), 0.5)]
    for entries in (adapters[:1], adapters, adapters[1:]):
        compose_both(models, torch_side, entries)
    reset_both(models, torch_side)
    assert sha256(models[0]) == pristine


class Attention(torch.nn.Module):
    """Qwen-Image's names, with its three projections fused."""

    def __init__(self):
        super().__init__()
        block = torch.nn.Module()
        block.attn = torch.nn.Module()
        block.attn.to_qkv = torch.nn.Linear(24, 3 * 20).bfloat16()
        self.transformer_blocks = torch.nn.ModuleList([block])


@pytest.mark.parametrize(
    "name", ["LoHa", "LoKr", "full difference", "DoRA, rows", "DoRA, input channels", "(IA)3, rows"]
)
def test_rows_of_a_fused_weight(torch_side, fake_cuda, name):
    fake_cuda.mode("random", 2)
    torch.manual_seed(0)
    host = Attention()
    models = torch_side.move(copy.deepcopy(host)), host
    tensors = {}
    for seed, part in enumerate("qv"):
        own = ALGORITHMS[name].tensors((20, 24), Filled(torch.float16, seed))
        tensors |= {f"transformer_blocks.0.attn.to_{part}.{ending}": value for ending, value in own.items()}
    report = compose_both(models, torch_side, [(tensors, 0.5)], strict=True)[0]
    assert report.applied == 2
    reset_both(models, torch_side)
    assert differing(*models) == []
