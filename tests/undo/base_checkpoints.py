"""The checkpoint that a model was loaded from."""

from safetensors.torch import save_file


def save_base(model, path, dtype=None):
    """Writes the model's tensors, in ``dtype`` if that is given. Returns the path."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, path)
    return path
