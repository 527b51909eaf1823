"""A small model of every kind of weight that adapters reach, with values planted that arithmetic alone cannot bring
back."""

import torch
from torch import nn

_BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class EveryKind(nn.Module):
    """``wide`` and ``tall`` span several tiles of the records; ``plain`` gets no odd values (a row's norm with a NaN in
    it would be none); ``tied`` is ``tall``'s weight under another name."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(1100, 53)
        self.tall = nn.Linear(38, 90, bias=False)
        self.tied = nn.Linear(38, 90, bias=False)
        self.tied.weight = self.tall.weight
        self.conv = nn.Conv2d(6, 10, 3)
        self.last = nn.Conv2d(8, 12, 3, bias=False)
        self.point = nn.Conv2d(7, 11, 1, bias=False)
        self.table = nn.Embedding(64, 48)
        self.norm = nn.LayerNorm(48)
        self.plain = nn.Linear(40, 30)
        block = nn.Module()
        block.attn = nn.Module()
        block.attn.to_qkv = nn.Linear(20, 60, bias=False)
        self.transformer_blocks = nn.ModuleList([block])  # Qwen-Image's, with its projections fused


def every_kind(dtype, planted=True):
    """The model in ``dtype``, always the same bits; ``last`` is channels_last."""
    torch.manual_seed(11)
    model = EveryKind()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=1.0 if "norm" in name else 0.06)
    model = model.to(dtype).requires_grad_(False)
    model.last.to(memory_format=torch.channels_last)
    assert not model.last.weight.is_contiguous()
    if planted:
        for name, parameter in model.named_parameters():
            if not name.startswith("plain"):
                plant(parameter)
    return model


def odd_values(dtype):
    """Bits of: quiet and signalling NaNs of either sign with payloads, both infinities, both zeros, the smallest and
    the largest subnormals of either sign, the smallest normal, half of the largest number."""
    if dtype in (torch.float16, torch.bfloat16):
        exponent, top = (0x7C00, 0x0200) if dtype == torch.float16 else (0x7F80, 0x0040)
        sign, unit = -0x8000, top << 1
    else:
        exponent, top, sign = 0x7F800000, 0x00400000, -0x80000000
        unit = top << 1
    positive = [exponent | top | 0x15, exponent | 0x0B, exponent, 0, 1, unit - 1, unit, exponent - unit - 1]
    return torch.tensor([*positive, *(value + sign for value in positive)], dtype=_BITS[dtype])


def plant(tensor):
    """Puts every odd value into a tensor, spread from its first element to its last."""
    values = odd_values(tensor.dtype)
    bits = tensor.detach().view(_BITS[tensor.dtype])
    places = torch.linspace(0, tensor.numel() - 1, len(values)).long()
    for place, value in zip(places.tolist(), values, strict=True):
        index, rest = [], place
        for size in reversed(tensor.shape):
            index.append(rest % size)
            rest //= size
        bits[tuple(reversed(index))] = value


def bits_of(tensor):
    """A tensor's elements as integers, in its own order of dimensions: NaNs compare, and -0 is not 0."""
    return tensor.detach().view(_BITS[tensor.dtype])


def all_bits(model):
    """{name: copies of the bits} of every parameter and buffer."""
    return {name: bits_of(tensor).clone() for name, tensor in model.state_dict().items()}


def write_bits(model, bits):
    """Writes what :func:`all_bits` returned."""
    for name, tensor in model.state_dict().items():
        bits_of(tensor).copy_(bits[name])


def differing(model, other):
    """Names of the parameters that are not the same bits in both models."""
    return [n for n, p in model.named_parameters() if not torch.equal(bits_of(p), bits_of(other.get_parameter(n)))]
