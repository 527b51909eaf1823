"""All that is asked of torch about CUDA, in one place: where a tensor lies, the current stream, and device memory.

Memory comes from torch's caching allocator: it is good for work on the stream that is current now, and may be dropped
as soon as that work is submitted.
"""

from __future__ import annotations

import torch

OutOfMemoryError = torch.cuda.OutOfMemoryError  # the older of its two names


def device_of(tensor: torch.Tensor) -> torch.device:
    """Where a tensor lies; CUDA devices have their index."""
    return tensor.device


def current_stream(device: torch.device) -> int:
    """torch's current stream there, as the driver's handle."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A contiguous tensor of unspecified content. Initialises torch's CUDA side if nobody has."""
    return torch.empty(shape, dtype=dtype, device=device)


def used_now(tensor: torch.Tensor, device: torch.device) -> None:
    """Says that the current stream works with memory from :func:`allocate`, whichever it was allocated on."""
    tensor.record_stream(torch.cuda.current_stream(device))


def is_available() -> bool:
    """True where torch can use a CUDA device."""
    return torch.cuda.is_available() and torch.version.hip is None


def resolve(device: torch.device | str | int) -> torch.device:
    """With its index: ``"cuda"`` is torch's current device, a number a device's."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
