"""Nunchaku's quantised layers, with the attributes of the real ones and arithmetic of our own on the CPU.

The low-rank branch is unpacked by an index formula, one element at a time: nothing here looks at tiles. How the 4-bit
weights lie in their bytes is made up, for nobody but the forward here reads them.
"""

from functools import lru_cache

import torch
from torch import nn

GROUP = 64
TILE = 16  # ranks and widths of the low-rank branch are multiples of it


@lru_cache(maxsize=256)
def packed_offsets(rank, features, down):
    """Where the elements of a low-rank matrix are in its packed tensor, read as one row: an int64 tensor of offsets,
    [rank, features] for the down projection and [features, rank] for the up projection."""
    if rank % TILE or features % TILE:
        raise ValueError(f"rank {rank} and features {features} have to be multiples of {TILE}")
    r = torch.arange(rank).reshape(rank, 1) if down else torch.arange(rank).reshape(1, rank)
    c = torch.arange(features).reshape(1, features) if down else torch.arange(features).reshape(features, 1)
    n, k = (r % 16, c % 16) if down else (c % 16, r % 16)
    tile = (c // 16) * (rank // 16) + r // 16
    return tile * 256 + (n % 8) * 32 + (k % 8) // 2 * 8 + (n // 8) * 4 + (k // 8) * 2 + k % 2


def pack(matrix, down):
    """A down projection [rank, in] or an up projection [out, rank] as the kernels want it: [in, rank], [out, rank]."""
    rank, features = matrix.shape if down else reversed(matrix.shape)
    packed = matrix.new_empty(features * rank)
    packed[packed_offsets(rank, features, down)] = matrix
    return packed.reshape(features, rank)


def unpack(packed, down):
    """The inverse of :func:`pack`."""
    features, rank = packed.shape
    return packed.detach().reshape(-1)[packed_offsets(rank, features, down)]


def unpacked_down(module):
    """The down projection of an SVDQW4A4Linear, [rank, in]."""
    return unpack(module.proj_down, down=True)


def unpacked_up(module):
    """The up projection of an SVDQW4A4Linear, [out, rank]."""
    return unpack(module.proj_up, down=False)


def low_rank(module):
    """What the low-rank branch of an SVDQW4A4Linear multiplies its input with, float64 [out, in]."""
    return unpacked_up(module).double() @ unpacked_down(module).double()


class _Quantised(nn.Module):
    """What both layers share. On the meta device parameters have no values, and cost no time."""

    def __init__(self, in_features, out_features, dtype, device, seed):
        super().__init__()
        if in_features % GROUP or out_features % TILE:
            raise ValueError(f"{out_features} x {in_features}: not whole groups of {GROUP} and tiles of {TILE}")
        self.in_features, self.out_features, self.group_size = in_features, out_features, GROUP
        self._dtype, self._device = dtype, torch.device(device)
        self._generator = torch.Generator().manual_seed(seed) if self._device.type != "meta" else None

    def _register(self, name, shape, fill, dtype=None):
        dtype = dtype or self._dtype
        if self._generator is None:
            value = torch.empty(shape, dtype=dtype, device="meta")
        else:
            value = fill(shape).to(dtype).to(self._device)
        self.register_parameter(name, nn.Parameter(value, requires_grad=False))

    def _register_bias(self, wanted, size):
        if wanted:
            self._register("bias", (self.out_features,), self._normal(size))
        else:
            self.register_parameter("bias", None)

    def _normal(self, size, about=0.0):
        return lambda shape: torch.randn(shape, generator=self._generator) * size + about

    def _integers(self, low, high, dtype):
        return lambda shape: torch.randint(low, high, shape, generator=self._generator, dtype=dtype)

    def _filled(self):
        del self._generator  # modules are copied and pickled

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def _add_bias(self, y):
        return y if self.bias is None else y + self.bias.to(y.dtype)


class SVDQW4A4Linear(_Quantised):
    """4-bit weights and a 16-bit low-rank branch beside them: y = W (x / smooth) + up down x + bias."""

    def __init__(self, in_features, out_features, rank=32, bias=True, dtype=torch.bfloat16, device="cpu", seed=0):
        super().__init__(in_features, out_features, dtype, device, seed)
        self.rank, self.precision, self.torch_dtype = rank, "int4", dtype
        self.act_unsigned, self.wtscale, self.wcscales = False, None, None
        size = in_features**-0.5
        self._register("qweight", (out_features, in_features // 2), self._integers(-128, 128, torch.int8), torch.int8)
        self._register_bias(bias, size)
        self._register("wscales", (in_features // GROUP, out_features), self._normal(size / 32, size / 4))
        self._register("smooth_factor", (in_features,), self._normal(0.05, 1.0))
        self._register("smooth_factor_orig", (in_features,), self._normal(0.05, 1.0))
        down, up = self._normal(size), self._normal(rank**-0.5)
        self._register("proj_down", (in_features, rank), lambda shape: pack(down(shape[::-1]), down=True))
        self._register("proj_up", (out_features, rank), lambda shape: pack(up(shape), down=False))
        self._filled()

    def dequantised(self):
        """The 4-bit weight in float64, [out, in]: a byte holds two signed columns, the first in its low half."""
        low = (self.qweight << 4) >> 4
        pairs = torch.stack([low, self.qweight >> 4], dim=-1)
        levels = pairs.reshape(self.out_features, self.in_features).double()
        return levels * self.wscales.double().t().repeat_interleave(GROUP, dim=1)

    def forward(self, x):
        """x [..., in] -> [..., out] of its dtype, computed in float64 where x has that, else in float32."""
        self._require_kernel_arguments()
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        at = x.to(wide)
        y = (at / self.smooth_factor.to(wide)) @ self.dequantised().to(wide).t()
        y = y + (at @ unpacked_down(self).to(wide).t()) @ unpacked_up(self).to(wide).t()
        return self._add_bias(y).to(x.dtype)

    def _require_kernel_arguments(self):
        """What the real kernels take for granted: they get pointers, and one rank for both projections."""
        rank = self.proj_down.shape[1]
        assert rank == self.rank, f"proj_down has rank {rank}, the module says {self.rank}"
        assert self.proj_down.shape == (self.in_features, rank), self.proj_down.shape
        assert self.proj_up.shape == (self.out_features, rank), self.proj_up.shape
        assert self.proj_down.dtype == self.proj_up.dtype == self.torch_dtype
        assert self.proj_down.is_contiguous()
        assert self.proj_up.is_contiguous()


class AWQW4A16Linear(_Quantised):
    """4-bit weights with a zero point a group: y = W x + bias."""

    def __init__(
        self, in_features, out_features, bias=True, group_size=GROUP, dtype=torch.bfloat16, device="cpu", seed=0
    ):
        super().__init__(in_features, out_features, dtype, device, seed)
        self.group_size = group_size
        size = in_features**-0.5
        words, groups = (out_features // 4, in_features // 2), in_features // group_size
        self._register("qweight", words, self._integers(-(2**31), 2**31, torch.int64), torch.int32)
        self._register_bias(bias, size)
        self._register("wscales", (groups, out_features), self._normal(size / 32, size / 4))
        self._register("wzeros", (groups, out_features), self._normal(size / 8, -2 * size))
        self._filled()

    def dequantised(self):
        """The weight in float64, [out, in]: a word holds 4 rows x 2 columns, unsigned, the lowest bits first."""
        shifts = torch.arange(0, 32, 4, device=self.qweight.device)
        levels = (self.qweight.unsqueeze(-1) >> shifts) & 15  # [out / 4, in / 2, 8]
        levels = levels.reshape(self.out_features // 4, self.in_features // 2, 4, 2).permute(0, 2, 1, 3)
        levels = levels.reshape(self.out_features, self.in_features).double()
        scales, zeros = (
            value.double().t().repeat_interleave(self.group_size, dim=1) for value in (self.wscales, self.wzeros)
        )
        return levels * scales + zeros

    def forward(self, x):
        """x [..., in] -> [..., out] of its dtype, computed in float64 where x has that, else in float32."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return self._add_bias(x.to(wide) @ self.dequantised().to(wide).t()).to(x.dtype)
