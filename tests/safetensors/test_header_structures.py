"""Headers made by rule, so that a disagreement with safetensors shrinks to the smallest file that shows it."""

import json
import math

import pytest
from file_verdict import assert_same_bytes, assert_same_verdict, assert_same_verdict_on_bytes
from header_bytes import BITS, file_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

names = st.text(max_size=4) | st.sampled_from(["a", "__metadata__", "\0", "dtype"])
dims = st.integers(0, 5) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, 1.0, "1", None])
offsets = st.integers(0, 40) | st.sampled_from([2**32, 2**63, 2**64 - 1, 2**64, -1, 1.5])
metadata = st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3) | st.sampled_from([None, [], {"a": 1}])
dtypes = st.sampled_from([*BITS, "F31"])


@st.composite
def tensors(draw):
    """Name, type, shape, and by how much it begins and ends beside the place that is right for it."""
    small = st.integers(0, 3)
    shape = draw(st.lists(small, max_size=4) if draw(st.integers(0, 7)) else st.lists(dims, max_size=4))
    slips = st.sampled_from([(0, 0)] * 12 + [(0, 1), (1, 0), (-1, 0), (0, -1), (1, 1)])
    return draw(names), draw(dtypes), shape, draw(slips)


@st.composite
def files(draw):
    entries, end = [], 0
    for name, dtype, shape, (begin_slip, end_slip) in draw(st.lists(tensors(), max_size=5)):
        whole = dtype in BITS and all(type(dim) is int and 0 <= dim <= 64 for dim in shape)
        nbytes = math.prod(shape) * BITS[dtype] // 8 if whole else draw(st.integers(0, 4))
        place = [max(0, end + begin_slip), max(0, end + nbytes + end_slip)]
        if not draw(st.integers(0, 15)):
            place = draw(st.lists(offsets, max_size=3))
        end += nbytes
        fields = [("dtype", dtype), ("shape", shape), ("data_offsets", place)]
        form = draw(st.sampled_from(["object", "object", "list", "short", "twice", "more"]))
        fields = {"short": fields[1:], "twice": [*fields, fields[0]], "more": [*fields, ("x", [None])]}.get(
            form, fields
        )
        entries.append((name, [value for _, value in fields] if form == "list" else fields))
    entries += [("__metadata__", draw(metadata)) for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2])))]
    text = written(draw(st.permutations(entries)), draw(st.booleans()))
    nbytes = max(0, end + draw(st.sampled_from([0] * 8 + [1, -1])))
    return file_of(text.encode(errors="surrogatepass"), bytes(i % 251 for i in range(nbytes)))


def written(members, ascii_only):
    """As JSON. Pairs make an object, so that a member can come twice."""

    def value(item):
        pairs = isinstance(item, list) and item and all(isinstance(part, tuple) for part in item)
        return written(item, ascii_only) if pairs else json.dumps(item, ensure_ascii=ascii_only)

    return "{" + ",".join(f"{json.dumps(name, ensure_ascii=ascii_only)}:{value(item)}" for name, item in members) + "}"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(tmp_path_factory.mktemp("structures") / "x.safetensors")


@settings(max_examples=800, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(content=files(), backend=st.sampled_from(["auto", "mmap", "pread"]))
def test_headers_made_by_rule(path, content, backend):
    with open(path, "wb") as file:
        file.write(content)
    if assert_same_verdict(path, content, backend):
        assert_same_bytes(path, content, backend)
    assert_same_verdict_on_bytes(content)
