"""Loading safetensors files as the safetensors package does: same calls, same tensors, same errors."""

from .handle import TensorSlice, safe_open

__all__ = ["TensorSlice", "safe_open"]
