"""Every exception this package raises on purpose. All derive from :class:`LoraMmapError`.

Messages read ``[public_function] what happened: file, tensor, expected, actual``.
"""

from safetensors import SafetensorError


class LoraMmapError(Exception):
    """Base of all errors of lora_mmap."""


class ArgumentError(LoraMmapError, ValueError):
    """The caller passed something impossible: a NaN strength, an unknown restore tier, a model that is none."""


class AdapterError(LoraMmapError):
    """An adapter cannot be used as it is: not a LoRA, a pair that does not fit, an unsupported algorithm."""


class HeaderError(AdapterError, SafetensorError):
    """A safetensors header breaks a rule of the format."""


class ReadError(AdapterError, SafetensorError, OSError):
    """A file gave fewer bytes than its header promises, or changed while it was in use."""


class ClosedError(LoraMmapError, SafetensorError, ValueError):
    """The file or adapter was closed before this call."""


class LoaderArgumentError(ArgumentError, SafetensorError):
    """A loader was asked for a framework, device or backend that there is not."""


class TensorError(LoraMmapError, SafetensorError):
    """A safetensors file has no tensor of that name, or it cannot be sliced or held as asked."""


class UnreadableFileError(PermissionError, FileNotFoundError):
    """A loader may not open a file. safetensors calls any such failure a FileNotFoundError, so this is both."""


class PatternError(LoraMmapError, ValueError):
    """A key pattern or a family table is malformed, ambiguous or unreachable."""


class UnmatchedKeysError(AdapterError):
    """``strict=True`` and some key of an adapter finds no home in the model."""


class AmbiguousKeyError(AdapterError):
    """A key fits several places of the model and nothing says which: never guessed."""


class ModelError(LoraMmapError):
    """A weight of the model cannot be fused into: overlapping storage, a device or dtype without a kernel."""


class CudaError(LoraMmapError, RuntimeError):
    """The CUDA driver is missing or too old, has no such device, cannot be used where it was asked, or failed."""


class FusionOverflowError(LoraMmapError, ArithmeticError):
    """A fused weight would not be finite where the pristine one was. The composition was rolled back."""
