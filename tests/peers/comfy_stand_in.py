"""An imitation of how ComfyUI's comfy.utils used safetensors in 2023, 2025 and 2026, written for these tests.

What matters is which names it uses: attributes of the module ``safetensors``, looked up at the call.
"""

import safetensors.torch
import torch

DISABLE_MMAP = False


class Unusable(ValueError):
    """Told to somebody who picked the file from a menu."""


def load_torch_file_2023(ckpt, safe_load=False, device=None):
    """One call for everything."""
    where = torch.device("cpu") if device is None else device
    if ckpt.lower().endswith(".safetensors"):
        return safetensors.torch.load_file(ckpt, device=where.type)
    return torch.load(ckpt, map_location=where, weights_only=True)


def load_torch_file(ckpt, safe_load=False, device=None, return_metadata=False):
    """Tensor by tensor; words in the message decide what the user is told; the metadata on request."""
    where = torch.device("cpu") if device is None else device
    metadata, tensors = None, {}
    if not ckpt.lower().endswith((".safetensors", ".sft")):
        tensors = torch.load(ckpt, map_location=where, weights_only=True)
        return (tensors, metadata) if return_metadata else tensors
    try:
        with safetensors.safe_open(ckpt, framework="pt", device=where.type) as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                tensors[key] = tensor.to(device=where, copy=True) if DISABLE_MMAP else tensor
            if return_metadata:
                metadata = file.metadata()
    except Exception as error:
        if error.args:
            (said, *_) = error.args
            if "HeaderTooLarge" in said:
                raise Unusable(f"{ckpt} is something else than a safetensors file: {said}") from error
            if "MetadataIncompleteBuffer" in said:
                raise Unusable(f"{ckpt} is incomplete, was it downloaded to the end? {said}") from error
        raise
    return (tensors, metadata) if return_metadata else tensors


def load_torch_file_2026(ckpt, **options):
    """As before, and every storage remembers its file."""
    loaded = load_torch_file(ckpt, **options)
    for tensor in (loaded[0] if options.get("return_metadata") else loaded).values():
        tensor.untyped_storage()._comfy_source_path = ckpt
    return loaded
