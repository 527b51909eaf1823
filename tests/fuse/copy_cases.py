"""Rectangles to copy, for the CPU and for the kernels of GPUs."""

import torch

TYPES = [torch.int8, torch.int16, torch.int32, torch.int64, torch.complex128]
VIEWS = (
    lambda t: t,
    lambda t: t.new_zeros(t.shape[0], t.shape[1] + 5)[:, 2:-3],  # padded
    lambda t: t.new_zeros(*t.t().shape).t(),
    lambda t: t.new_zeros(2 * t.shape[0], 3 * t.shape[1])[::2, 1::3],  # spread
)


def rect(dst, src):
    return (dst.data_ptr(), src.data_ptr(), *src.shape, *dst.stride(), *src.stride(), src.element_size())


def numbered(rows, cols, dtype):
    return (torch.arange(rows * cols) * 2654435761 >> 7).reshape(rows, cols).to(dtype)


def check_every_pair_of_strides(copy, dtype):
    """``copy`` takes a list of rectangles."""
    values = numbered(70, 45, dtype)
    for of_src in VIEWS:
        for of_dst in VIEWS:
            src, dst = of_src(values.clone()), of_dst(values.clone())
            src.copy_(values)
            dst.zero_()
            copy([rect(dst, src)])
            assert torch.equal(dst, values)
            assert torch.equal(src, values)
