"""Small models, their fingerprints, and what has to hold after every test."""

import hashlib
import signal

import pytest
import torch
from torch import nn

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Small(nn.Module):
    """Two Linears, a 3x3 and a 1x1 convolution; no width is a multiple of anything."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(23, 37)
        self.second = nn.Linear(37, 29, bias=False)
        self.conv = nn.Conv2d(5, 7, 3)
        self.point = nn.Conv2d(7, 11, 1)


def fingerprint(model):
    """SHA-256 over the bytes of every parameter and buffer, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        if tensor.is_meta:
            continue
        digest.update(name.encode())
        dense = tensor.detach().contiguous()
        digest.update(dense.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def small():
    torch.manual_seed(7)
    return Small()


@pytest.fixture
def sha256():
    return fingerprint
