"""Where the elements of a factor go."""

import pytest
import torch
from branch_reference import BRANCH_DTYPES, NAMES, Branch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_mmap import _C

LAYOUTS = ["down", "up", "plain", "plain_by_rank"]
PACKED = ["down", "up"]


def numbers(generator, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator).to(dtype)


def test_elements_of_a_tile_by_hand(isa):
    """The positions of a few elements, written down: a pair along k, then k + 8, n + 8, the next pair, the next n."""
    for layout in PACKED:
        tile = torch.zeros(256, dtype=torch.float16)
        by_n_k = torch.arange(256, dtype=torch.float16).reshape(16, 16)
        feature_stride, rank_stride = (1, 16) if layout == "down" else (16, 1)
        job = (layout, tile.data_ptr(), 256, 256, "F16", 0, 16, 0, 16)
        assert _C.write_factors([(*job, by_n_k.data_ptr(), "F16", feature_stride, rank_stride, 1.0, 0)], 1, isa) == [0]
        in_memory = [(0, 0), (0, 1), (0, 8), (0, 9), (8, 0), (8, 1), (8, 8), (8, 9), (0, 2), (0, 3), (0, 10), (0, 11)]
        assert tile[:12].tolist() == [16 * n + k for n, k in in_memory]
        assert tile[32:34].tolist() == [16.0, 17.0]
        assert tile[-1] == 255


@pytest.mark.parametrize("dtype", BRANCH_DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_shape_of_whole_tiles(isa, layout, dtype, generator):
    sizes = range(16, 129, 16)
    branches = [Branch(layout, features, ranks, dtype, generator) for features in sizes for ranks in sizes]
    factors = [numbers(generator, b.ranks, b.features, dtype=dtype).t() for b in branches]
    if layout == "up":
        factors = [factor.contiguous() for factor in factors]
    jobs = [b.job(f, (0, b.features), (0, b.ranks)) for b, f in zip(branches, factors, strict=True)]
    assert _C.write_factors(jobs, 2, isa) == [0] * len(jobs)
    for branch in branches:
        branch.check_every_bit()


@pytest.mark.parametrize("ranks", [(3, 7), (0, 1), (15, 17), (5, 48), (16, 32), (31, 32)], ids=str)
@pytest.mark.parametrize("features", [(0, 64), (16, 48), (5, 11), (1, 63), (30, 34), (63, 64)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_tiles(isa, layout, features, ranks, generator):
    branch = Branch(layout, 64, 48, torch.bfloat16, generator)
    factor = numbers(generator, features[1] - features[0], ranks[1] - ranks[0])
    assert _C.write_factors([branch.job(factor, features, ranks, scale=0.3)], 1, isa) == [0]
    branch.check()


@pytest.mark.parametrize("layout", PACKED)
def test_a_tail_of_ranks_handed_over_by_its_address(isa, layout, generator):
    branch = Branch(layout, 32, 64, torch.float16, generator)
    factor = numbers(generator, 32, 20, dtype=torch.float16)
    job = list(branch.job(factor, (0, 32), (32, 52)))
    job[1] += 2 * (32 // 16 * 256)
    job[7:9] = [0, 20]
    _C.write_factors([tuple(job)], 1, isa)
    branch.check_every_bit()


def moved(tensor, nbytes):
    """The same values at an address that is ``nbytes`` beyond a multiple of 64; what has to be kept alive too."""
    memory = torch.zeros(tensor.numel() * tensor.element_size() + 128, dtype=torch.uint8)
    first = -memory.data_ptr() % 64 + nbytes
    memory[first : first + tensor.numel() * tensor.element_size()] = tensor.view(-1).view(torch.uint8)
    return memory.data_ptr() + first, memory[first:], memory


@pytest.mark.parametrize("dtype", BRANCH_DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_alignment(isa, layout, dtype, generator):
    for of_branch, of_factor in [(1, 0), (2, 1), (4, 3), (16, 7), (32, 0), (33, 33)]:
        branch = Branch(layout, 48, 32, dtype, generator)
        factor = numbers(generator, 48, 32)
        job = list(branch.job(factor, (0, 48), (0, 31), 0.7))
        address, memory, _kept = moved(branch.memory, of_branch)
        job[1] += address - branch.memory.data_ptr()
        job[9], _factor, _kept_too = moved(factor, of_factor)
        assert _C.write_factors([tuple(job)], 1, isa) == [0]
        branch.memory.view(torch.uint8)[:] = memory[: branch.memory.numel() * branch.memory.element_size()]
        branch.check()


STRIDES = {
    "by rank": lambda t: t.t().contiguous().t(),
    "by feature": lambda t: t.contiguous(),
    "padded": lambda t: torch.cat([t, t, t], 1)[:, : t.shape[1]],
    "padded by rank": lambda t: torch.cat([t, t], 0).t().contiguous().t()[: t.shape[0]],
    "spread": lambda t: t.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "one row": lambda t: t[:1].expand(t.shape[0], -1),
}


@pytest.mark.parametrize("factor_dtype", [torch.float16, torch.float8_e5m2, torch.float64], ids=NAMES.get)
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_of_factors(isa, layout, strides, factor_dtype, generator):
    branch = Branch(layout, 560, 48, torch.float16, generator)  # more columns than a panel has
    factor = numbers(generator, 544, 37).to(factor_dtype)
    integers = {1: torch.uint8, 2: torch.int16, 8: torch.int64}[factor.element_size()]
    strided = STRIDES[strides](factor.view(integers)).view(factor_dtype)
    _C.write_factors([branch.job(strided, (7, 551), (2, 39))], 1, isa)
    branch.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_negative_strides(isa, layout, generator):
    branch = Branch(layout, 32, 32, torch.float32, generator)
    factor = numbers(generator, 32, 32)
    *job, scale, no_map = branch.job(factor.flip(0, 1), (0, 32), (0, 32))
    job[-4:] = [factor.data_ptr() + 4 * (32 * 32 - 1), "F32", -32, -1]
    _C.write_factors([(*job, scale, no_map)], 1, isa)
    branch.check_every_bit()


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("by_rank", [False, True], ids=["by feature", "by rank"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps(isa, layout, by_rank, scale, generator):
    permuted = torch.randperm(64, generator=generator).int()
    holes = torch.where(permuted % 5 == 0, -1, permuted).int()
    whole_tile_left = permuted.clone()
    whole_tile_left[16:32] = -1
    for index in [permuted, holes, whole_tile_left, torch.full((64,), 3).int(), torch.full((64,), -1).int()]:
        branch = Branch(layout, 96, 32, torch.bfloat16, generator)
        factor = numbers(generator, 64, 20, dtype=torch.bfloat16)
        factor = factor.t().contiguous().t() if by_rank else factor
        _C.write_factors([branch.job(factor, (16, 80), (0, 20), scale, index)], 1, isa)
        branch.check()
        branch = Branch(layout, 96, 32, torch.bfloat16, generator)
        _C.write_factors([branch.job(None, (16, 80), (0, 20), scale, index)], 1, isa)
        branch.check_every_bit()


@pytest.mark.parametrize("dtype", BRANCH_DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_zeros(isa, layout, dtype, generator):
    for features, ranks in [((0, 320), (0, 64)), ((0, 320), (36, 48)), ((17, 300), (16, 32)), ((4, 4), (0, 64))]:
        branch = Branch(layout, 320, 64, dtype, generator)
        assert _C.write_factors([branch.job(None, features, ranks)], 2, isa) == [0]
        branch.check_every_bit()


def test_ranks_beside_each_other_in_one_call(isa, generator):
    """Adapters of ranks 3, 4 and 5 that share a tile, and zeros for what is left of it, on several threads."""
    branches = [Branch(layout, 4096, 16, torch.float16, generator) for layout in LAYOUTS]
    factors = [numbers(generator, 4096, rank) for rank in (3, 4, 5)]
    jobs = []
    for branch in branches:
        parts = zip([*factors, None], [(0, 3), (3, 7), (7, 12), (12, 16)], strict=True)
        jobs += [branch.job(factor, (0, 4096), ranks, 2.0) for factor, ranks in parts]
    _C.write_factors(jobs, 4, isa)
    for branch in branches:
        branch.check()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_rectangle(data):
    layout = data.draw(st.sampled_from(LAYOUTS))
    ranks, features = (data.draw(st.integers(1, most)) * 16 for most in (4, 40))
    of_ranks, of_features = (
        tuple(sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in (ranks, features)
    )
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    dtype, factor_dtype = data.draw(st.sampled_from(BRANCH_DTYPES)), data.draw(st.sampled_from(list(NAMES)))
    branch = Branch(layout, features, ranks, dtype, generator)
    rows = data.draw(st.integers(1, features))
    count = of_features[1] - of_features[0]
    index = torch.randint(-1, rows, (count,), generator=generator, dtype=torch.int32)
    mapped = data.draw(st.booleans())
    width = of_ranks[1] - of_ranks[0] + data.draw(st.integers(0, 3))
    factor = numbers(generator, rows if mapped else max(count, 1), max(width, 1)).to(factor_dtype)
    if data.draw(st.booleans()):
        factor = factor.t().contiguous().t()
    scale = data.draw(st.sampled_from([1.0, 0.7]))
    job = branch.job(factor, of_features, of_ranks, scale, index if mapped else None)
    isa = data.draw(st.sampled_from(_C.isas()))
    assert _C.write_factors([job], data.draw(st.integers(1, 3)), isa) == [0]
    branch.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_change_no_byte(isa, layout, generator):
    """Jobs of one feature and of thousands, more work than one piece."""
    sizes = [(16, 16), (4608, 32), (1, 3), (9000, 16), (160, 64)]
    factors = [numbers(generator, *size) for size in sizes]
    written = []
    for threads in (1, 4):
        again = torch.Generator().manual_seed(3)
        memory = [Branch(layout, (f + 15) // 16 * 16, 64, torch.bfloat16, again) for f, _r in sizes]
        jobs = [
            b.job(factor, (0, size[0]), (0, size[1]), 1e38)
            for b, factor, size in zip(memory, factors, sizes, strict=True)
        ]
        written.append((_C.write_factors(jobs, threads, isa), [b.memory for b in memory]))
        for branch in memory:
            branch.check()
    assert written[0][0] == written[1][0]
    assert sum(written[0][0]) > 0
    for one, four in zip(written[0][1], written[1][1], strict=True):
        assert torch.equal(one.view(torch.int16), four.view(torch.int16))
