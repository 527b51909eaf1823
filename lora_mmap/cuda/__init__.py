"""Weights and tensors on CUDA devices: what is asked of torch, the arena factors pass through, the launches."""
