"""Checkpoints for tests, and the native items that set tensors beside them."""

import torch
from safetensors.torch import save_file

from lora_mmap import _C
from lora_mmap.tensor_source import FileTensors, dtype_name

BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


def bits(tensor):
    return tensor.detach().contiguous().view(BITS[tensor.dtype])


def random_bits(*shape, dtype, seed=0):
    """Every pattern is as likely as any other: NaNs, infinities and subnormals are among them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, dtype.itemsize), generator=generator, dtype=torch.uint8).view(dtype)[..., 0]


class Beside:
    """A file of one tensor, and items of weights beside it."""

    def __init__(self, folder, values, name="w"):
        self.path = folder / "base.safetensors"
        save_file({"before": torch.arange(7, dtype=torch.uint8), name: values.contiguous()}, self.path)
        self.source = FileTensors(str(self.path))
        self.index = self.source.names.index(name)

    def item(self, weight, *, rows=None, cols=None, columns=None, first=0, file_strides=None):
        """``weight`` as a matrix beside the tensor from its element ``first`` on; ``columns``: an int32 map."""
        source, index = self.source, self.index
        rows, cols = rows or weight.shape[0], cols or weight.shape[1]
        dtype = source.dtypes[index]
        itemsize = {"F64": 8, "F32": 4}.get(dtype, 2)
        return (
            *(source.file, source.header, source.offsets[index] + first * itemsize, dtype),
            *(file_strides or (source.shapes[index][-1], 1)),
            0 if columns is None else columns.data_ptr(),
            *(weight.data_ptr(), rows, cols, weight.stride(0), weight.stride(1), dtype_name(weight.dtype)),
        )

    def equals(self, weight, threads=1, isa=None, **where):
        return _C.equals_file([self.item(weight, **where)], threads, isa)[0]

    def read(self, weight, threads=1, isa=None, **where):
        _C.read_converted([self.item(weight, **where)], threads, isa)
        return weight
