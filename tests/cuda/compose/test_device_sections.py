"""Sections of rows and columns, permuted rows and several windows on a device: the CPU's bits, and back again."""

import copy

import pytest
import torch
from adapter_tensors import factors, keyed
from device_models import differing
from torch import nn

import lora_mmap

WIDTH = 24


class Nunchaku(nn.Module):
    """Two blocks of Flux.1 as Nunchaku names them: fused rows, split columns, interleaved modulation."""

    def __init__(self):
        super().__init__()
        double, single = nn.Module(), nn.Module()
        double.qkv_proj = nn.Linear(WIDTH, 3 * WIDTH)
        double.norm1 = nn.Module()
        double.norm1.linear = nn.Linear(WIDTH, 6 * WIDTH).bfloat16()
        single.qkv_proj = nn.Linear(WIDTH, 3 * WIDTH).half()
        single.out_proj = nn.Linear(WIDTH, WIDTH).bfloat16()
        single.mlp_fc2 = nn.Linear(4 * WIDTH, WIDTH)
        self.transformer_blocks = nn.ModuleList([double])
        self.single_transformer_blocks = nn.ModuleList([single])


class Published(nn.Module):
    """The same blocks under their published names, whose columns take what is split elsewhere."""

    def __init__(self):
        super().__init__()
        single = nn.Module()
        single.linear1 = nn.Linear(WIDTH, 7 * WIDTH).bfloat16()
        single.linear2 = nn.Linear(5 * WIDTH, WIDTH).half()
        self.single_blocks = nn.ModuleList([single])
        self.final_layer = nn.Module()
        self.final_layer.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))


def shared(rank: int, seed: int) -> dict[str, torch.Tensor]:
    """An adapter under diffusers' names for whatever of it a model has."""
    torch.manual_seed(seed)
    double, single = "transformer_blocks.0.", "single_transformer_blocks.0."
    return keyed(
        {
            **{f"{double}attn.{part}": factors(WIDTH, WIDTH, rank + n) for n, part in enumerate(("to_q", "to_v"))},
            double + "norm1.linear": factors(6 * WIDTH, WIDTH, rank),
            single + "attn.to_k": factors(WIDTH, WIDTH, rank),
            single + "proj_mlp": factors(4 * WIDTH, WIDTH, rank),
            single + "proj_out": factors(WIDTH, 5 * WIDTH, rank),
            "norm_out.linear": factors(2 * WIDTH, WIDTH, rank),
        }
    )


def split_columns(rank: int) -> dict[str, torch.Tensor]:
    """Nunchaku's halves of the single blocks' output."""
    torch.manual_seed(rank)
    single = "single_transformer_blocks.0."
    return keyed(
        {single + "out_proj": factors(WIDTH, WIDTH, rank), single + "mlp_fc2": factors(WIDTH, 4 * WIDTH, rank)}
    )


@pytest.fixture(params=["eager", "lazy", "random"], autouse=True)
def order(request, fake_cuda):
    fake_cuda.mode(request.param, 7)


@pytest.mark.parametrize("kind", [Nunchaku, Published])
def test_sections_and_permutations(kind, torch_side, sha256, monkeypatch):
    from lora_mmap.cuda import device_stream

    torch.manual_seed(3)
    host = kind()
    device = torch_side.move(copy.deepcopy(host))
    pristine = sha256(host)
    adapters = [(shared(4, 1), 0.7), (shared(9, 2), -0.3), (split_columns(5), 1.1)]
    for window in (device_stream.WINDOW_NBYTES, 1):
        monkeypatch.setattr(device_stream, "WINDOW_NBYTES", window)
        for count in (3, 1, 2):
            for model in (device, host):
                assert lora_mmap.compose(model, adapters[:count])
            torch_side.synchronize()
            assert differing(device, host) == []
            assert sha256(host) != pristine
    for model in (device, host):
        assert lora_mmap.reset(model)
    torch_side.synchronize()
    assert sha256(device) == sha256(host) == pristine
