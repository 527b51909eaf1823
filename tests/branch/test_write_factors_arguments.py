import pytest
import torch

from lora_mmap import _C
from lora_mmap.errors import ArgumentError

FIELDS = [
    "layout",
    "address",
    "feature_pitch",
    "rank_pitch",
    "dtype",
    "features_begin",
    "features_end",
    "rank_begin",
    "rank_end",
    "factor",
    "factor_dtype",
    "feature_stride",
    "rank_stride",
    "scale",
    "feature_map",
]
FACTOR = torch.ones(32, 32, dtype=torch.float16)


def job(branch, **changes):
    good = ["down", branch.data_ptr(), 512, 256, "F16", 0, 32, 0, 32, FACTOR.data_ptr(), "F16", 32, 1, 1.0, 0]
    fields = dict(zip(FIELDS, good, strict=True))
    assert fields.keys() >= changes.keys()
    return tuple({**fields, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "sideways"}, "layout is 'sideways', expected down, up or plain"),
        ({"address": 0}, "the branch is a null pointer"),
        ({"dtype": "F64"}, "a branch of type F64, expected F16, BF16 or F32"),
        ({"dtype": "half"}, "unknown dtype 'half'"),
        ({"features_begin": -1}, "features from -1 to 32, expected 0 <= begin <= end"),
        ({"features_end": -5}, "features from 0 to -5"),
        ({"rank_begin": 33}, "ranks from 33 to 32"),
        ({"rank_begin": -16, "rank_end": -8}, "ranks from -16 to -8"),
        ({"factor": 0}, "the factor is a null pointer"),
        ({"factor_dtype": "I8"}, "a factor of type I8"),
        ({"factor_dtype": "F8_E8M0"}, "a factor of type F8_E8M0"),
        ({"feature_pitch": 255}, "feature_pitch is 255, expected at least 256 either way"),
        ({"rank_pitch": -1}, "rank_pitch is -1, expected at least 256"),
        ({"layout": "plain", "rank_pitch": 0}, "rank_pitch is 0, expected at least 1"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused_before_anything_is_written(changes, message):
    branch = torch.full((32, 32), 7, dtype=torch.float16)
    with pytest.raises(ArgumentError, match=rf"^\[write_factors\] .*{message}"):
        _C.write_factors([job(branch), job(branch, **changes)], 1)
    assert torch.equal(branch, torch.full_like(branch, 7))


def test_a_map_with_an_entry_below_minus_one():
    branch = torch.full((32, 32), 7, dtype=torch.float16)
    index = torch.arange(32, dtype=torch.int32)
    index[5] = -2
    with pytest.raises(ArgumentError, match=r"job 1: entry 5 of the feature map is -2, expected -1 or more"):
        _C.write_factors([job(branch), job(branch, feature_map=index.data_ptr())], 1)
    assert torch.equal(branch, torch.full_like(branch, 7))


def test_other_shapes_of_jobs():
    branch = torch.zeros(32, 32, dtype=torch.float16)
    for bad in [job(branch)[:-1], list(job(branch)), (*job(branch), 0), None]:
        with pytest.raises(ArgumentError, match=r"\[write_factors\] a job is not a tuple of 15"):
            _C.write_factors([bad], 1)
    for changes in [{"scale": "1"}, {"rank_end": 1.5}, {"address": None}, {"dtype": 3}, {"feature_map": None}]:
        with pytest.raises(TypeError):
            _C.write_factors([job(branch, **changes)], 1)
    for threads in (0, -1):
        with pytest.raises(ArgumentError, match=rf"threads is {threads}, expected 1 or more"):
            _C.write_factors([job(branch)], threads)
    with pytest.raises(ArgumentError, match="abacus"):
        _C.write_factors([job(branch)], 1, "abacus")
    assert not branch.any()


def test_what_needs_no_memory():
    """Empty ranges read and write nothing; one tile along a side needs no pitch; zeros need no factor."""
    nothing = {"address": 0, "factor": 0, "feature_map": 0}
    branch = torch.zeros(32, 32, dtype=torch.float16)
    assert _C.write_factors([job(branch, rank_end=0, **nothing), job(branch, features_begin=32, **nothing)], 2) == [
        0,
        0,
    ]
    assert _C.write_factors([job(branch, rank_begin=16, rank_pitch=256, feature_pitch=0, features_end=16)], 1) == [0]
    assert branch.view(-1)[256:512].all()
    assert branch.sum() == 256
    assert _C.write_factors([job(branch, factor=None, factor_dtype="I8", feature_stride=0)], 1) == [0]
    assert not branch.any()
