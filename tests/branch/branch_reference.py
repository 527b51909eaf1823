"""What _C.write_factors should do, by the formula of the packed layout and torch's arithmetic."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

NAMES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
BRANCH_DTYPES = [torch.float16, torch.bfloat16, torch.float32]
MARGIN = 64  # elements before and after a branch, to see what is written beyond it


@cache
def packed_offsets(layout, features, ranks):
    """Of a branch of so many features and ranks: where in the packed tensor each [feature, rank] lies."""
    offsets = np.empty((features, ranks), dtype=np.int64)
    for c in range(features):
        for r in range(ranks):
            n, k = (r % 16, c % 16) if layout == "down" else (c % 16, r % 16)
            tile = (c // 16) * (ranks // 16) + r // 16
            offsets[c, r] = tile * 256 + (n % 8) * 32 + ((k % 8) // 2) * 8 + (n // 8) * 4 + (k // 8) * 2 + k % 2
    return torch.from_numpy(offsets)


def plain_offsets(layout, features, ranks):
    """Row-major: "plain" as [features, ranks], "plain_by_rank" as [ranks, features]."""
    offsets = torch.arange(features * ranks)
    return offsets.reshape(features, ranks) if layout == "plain" else offsets.reshape(ranks, features).t()


def pitches(layout, features, ranks):
    if layout in ("down", "up"):
        return 16 * ranks, 256
    return (ranks, 1) if layout == "plain" else (1, features)


def bits(tensor):
    return tensor.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])


def random_bits(generator, count, dtype):
    """Any pattern there is: NaN, inf, subnormals."""
    nbytes = count * torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 256, (nbytes,), generator=generator, dtype=torch.uint8).view(dtype)


@dataclass
class Branch:
    """A branch with values of its own, between margins, and what has to be in it."""

    layout: str  # "down", "up", "plain" or "plain_by_rank"
    features: int
    ranks: int
    dtype: torch.dtype
    generator: torch.Generator
    memory: torch.Tensor = field(init=False)  # as it was, then as it is
    wanted: torch.Tensor = field(init=False)

    def __post_init__(self):
        count = self.features * self.ranks + 2 * MARGIN
        self.memory = random_bits(self.generator, count, self.dtype)
        self.wanted = self.memory.clone()
        packed = self.layout in ("down", "up")
        self.offsets = (packed_offsets if packed else plain_offsets)(self.layout, self.features, self.ranks)

    def job(self, factor, features, ranks, scale=1.0, index=None):
        """``factor``: [features, ranks] of any strides, or None; ``index``: an int32 map of the features. Notes what
        the job has to write."""
        self._note(factor, range(*features), range(*ranks), scale, index)
        named = "plain" if self.layout.startswith("plain") else self.layout
        address = self.memory.data_ptr() + MARGIN * self.memory.element_size()
        where = (named, address, *pitches(self.layout, self.features, self.ranks), NAMES[self.dtype], *features, *ranks)
        mapped = 0 if index is None else index.data_ptr()
        if factor is None:
            return (*where, None, "F32", 0, 0, scale, mapped)
        return (*where, factor.data_ptr(), NAMES[factor.dtype], *factor.stride(), scale, mapped)

    def _note(self, factor, features, ranks, scale, index):
        taken = torch.arange(len(features)) if index is None else index.long()
        at = self.offsets[features.start : features.stop, ranks.start : ranks.stop][taken >= 0] + MARGIN
        if factor is None:
            self.wanted[at] = 0
        elif factor.dtype == self.dtype and scale == 1:
            self.wanted[at] = factor[taken[taken >= 0], : len(ranks)]
        else:
            rows = factor.float()[taken[taken >= 0], : len(ranks)]
            self.wanted[at] = (rows * scale).to(self.dtype)

    def check(self):
        """Bit for bit, margins too, but for the payload of a NaN that was computed."""
        assert torch.equal(bits(self.memory)[self._numbers()], bits(self.wanted)[self._numbers()])
        assert torch.equal(torch.isnan(self.memory), torch.isnan(self.wanted))

    def check_every_bit(self):
        assert torch.equal(bits(self.memory), bits(self.wanted))

    def _numbers(self):
        return ~torch.isnan(self.wanted)
