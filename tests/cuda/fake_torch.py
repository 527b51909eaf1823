"""torch's CUDA side played over the fake driver: CPU tensors whose bytes lie in its device memory."""

import bisect
import ctypes
import math
import weakref

import torch
from torch import nn

from lora_mmap import model_state
from lora_mmap.cuda import from_torch


class Block(ctypes.Array):
    """Device memory as a buffer; it goes back to the fake's allocator with its last tensor."""

    _type_ = ctypes.c_char
    _length_ = 0


class FakeTorch:
    """Put in the place of what :mod:`lora_mmap.cuda.from_torch` asks of torch. ``peak`` counts bytes held at most, by
    device, since :meth:`reset_peak`."""

    def __init__(self, fake):
        self.fake = fake
        self.streams = {0: fake.stream(0), 1: fake.stream(1)}
        self._blocks = {}
        self._sorted = []
        self.held = {0: 0, 1: 0}
        self.peak = {0: 0, 1: 0}
        self._moved = weakref.WeakSet()
        self._closed = False

    def install(self, monkeypatch):
        for name in ("device_of", "current_stream", "allocate", "used_now", "is_available", "resolve"):
            monkeypatch.setattr(from_torch, name, getattr(self, name))

    def close(self):
        """What is known of the models goes, as if they had died. Device memory that is left the fake frees."""
        self.fake.fail(0)
        for module in self._moved:
            model_state._registry.pop(module, None)
        self._closed = True

    def reset_peak(self):
        self.peak = dict(self.held)

    def allocate(self, shape, dtype, device):
        count = math.prod(shape)
        nbytes = max(1, count * dtype.itemsize)
        stream = self.streams[device.index]
        address = self.fake.alloc(nbytes, stream, device.index)
        kind = type("Block", (Block,), {"_length_": nbytes})
        block = kind.from_address(address)
        self._blocks[address] = (nbytes, device)
        bisect.insort(self._sorted, address)
        self.held[device.index] += nbytes
        self.peak[device.index] = max(self.peak[device.index], self.held[device.index])
        weakref.finalize(block, self._free, address, stream)
        return (
            torch.frombuffer(block, dtype=dtype, count=count).reshape(shape)
            if count
            else torch.empty(shape, dtype=dtype)
        )

    def used_now(self, tensor, device):
        """The fake frees on the stream of the device, whatever it is by then."""

    def device_of(self, tensor):
        if tensor.is_meta:
            return tensor.device
        position = bisect.bisect(self._sorted, tensor.data_ptr())
        if position:
            address = self._sorted[position - 1]
            nbytes, device = self._blocks[address]
            if tensor.data_ptr() < address + nbytes:
                return device
        return tensor.device

    def current_stream(self, device):
        return self.streams[device.index]

    def is_available(self):
        return True

    def resolve(self, device):
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        return torch.device("cuda", device.index or 0)

    def move(self, module, index=0):
        """Brings a module's parameters to a fake device, ties and strides kept. Returns the module."""
        self._moved.add(module)
        moved = {}
        for child in module.modules():
            for name, parameter in child._parameters.items():
                if parameter is None or self.device_of(parameter).type == "cuda":
                    continue
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(self.copy_of(parameter.data, index), parameter.requires_grad)
                child._parameters[name] = moved[id(parameter)]
        return module

    def copy_of(self, tensor, index=0):
        """The same values in the same order of memory, on the device."""
        spread = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        memory = self.allocate((spread,), tensor.dtype, torch.device("cuda", index))
        return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def synchronize(self):
        """Everything submitted to torch's streams has happened."""
        for index, stream in self.streams.items():
            self.fake.synchronize(stream, index)

    def _free(self, address, stream):
        nbytes, device = self._blocks.pop(address)
        self._sorted.remove(address)
        self.held[device.index] -= nbytes
        if not self._closed:
            self.fake.free(address, stream)
