"""Nothing is lost on bad input: a clear error or a report entry, and every weight byte-identical after it."""

import contextlib
import json
import os
import struct

import pytest
import torch
from adapter_tensors import adapter_for, factors, keyed, write
from torch import nn

import lora_mmap
from lora_mmap.errors import (
    AdapterError,
    ArgumentError,
    ClosedError,
    FusionOverflowError,
    HeaderError,
    LoraMmapError,
    ModelError,
    UnmatchedKeysError,
)

NAN, INF = float("nan"), float("inf")


def good(model):
    return keyed(adapter_for(model, ["first", "second", "conv"]), alpha=2)


def raw_safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def altered(model, **changes):
    """A good adapter with some of its tensors replaced, or left out where the value is None."""
    tensors = good(model)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    return tensors


def with_value(model, key, value):
    tensors = good(model)
    tensors[key].view(-1)[0] = value
    return tensors


# Each: (what is wrong, source made from model and folder, class, words of the message besides function and file).
TENSOR_FAULTS = {
    "up missing": (lambda m: altered(m, first__lora_B__weight=None), AdapterError, ["first.lora_A.weight", "no up"]),
    "down missing": (
        lambda m: altered(m, first__lora_A__weight=None),
        AdapterError,
        ["first.lora_B.weight", "no down"],
    ),
    "only alpha": (
        lambda m: altered(m, first__lora_A__weight=None, first__lora_B__weight=None),
        AdapterError,
        ["first.alpha"],
    ),
    "too many columns": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 24)),
        AdapterError,
        ["first.lora_A.weight", "[4, 24]", "[37, 23]"],
    ),
    "too few rows": (
        lambda m: altered(m, first__lora_B__weight=torch.zeros(36, 4)),
        AdapterError,
        ["first.lora_B.weight", "[36, 4]", "[37, 23]"],
    ),
    "transposed": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(23, 4), first__lora_B__weight=torch.zeros(4, 37)),
        AdapterError,
        ["first", "[23, 4]", "[4, 37]"],
    ),
    "ranks disagree": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(3, 23)),
        AdapterError,
        ["first.lora_A.weight", "first.lora_B.weight", "rank 3", "rank 4"],
    ),
    "rank zero": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(0, 23), first__lora_B__weight=torch.zeros(37, 0)),
        AdapterError,
        ["first.lora_A.weight", "rank 0"],
    ),
    "one dimension": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(92)),
        AdapterError,
        ["first.lora_A.weight", "[92]"],
    ),
    "kernel axes swapped": (
        lambda m: altered(m, conv__lora_A__weight=torch.zeros(4, 3, 3, 5)),
        AdapterError,
        ["conv.lora_A.weight", "[4, 3, 3, 5]"],
    ),
    "integers": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 23, dtype=torch.int32)),
        AdapterError,
        ["first.lora_A.weight", "I32"],
    ),
    "bytes": (
        lambda m: altered(m, first__lora_A__weight=torch.zeros(4, 23, dtype=torch.uint8)),
        AdapterError,
        ["first.lora_A.weight", "U8"],
    ),
    "alpha NaN": (lambda m: altered(m, first__alpha=torch.tensor(NAN)), AdapterError, ["first", "alpha", "nan"]),
    "alpha inf": (lambda m: altered(m, first__alpha=torch.tensor(INF)), AdapterError, ["first", "alpha", "inf"]),
    "alpha of two": (lambda m: altered(m, first__alpha=torch.ones(2)), AdapterError, ["first.alpha", "one element"]),
    "NaN in down": (lambda m: with_value(m, "second.lora_A.weight", NAN), FusionOverflowError, ["second.weight"]),
    "NaN in up": (lambda m: with_value(m, "second.lora_B.weight", NAN), FusionOverflowError, ["second.weight"]),
    "inf in down": (lambda m: with_value(m, "conv.lora_A.weight", INF), FusionOverflowError, ["conv.weight"]),
    "-inf in up": (lambda m: with_value(m, "conv.lora_B.weight", -INF), FusionOverflowError, ["conv.weight"]),
    "too large": (
        lambda m: altered(m, first__lora_A__weight=torch.full((4, 23), 3e38), first__lora_B__weight=torch.ones(37, 4)),
        FusionOverflowError,
        ["first.weight"],
    ),
    "key with two downs": (
        lambda m: altered(m, first__lora_down__weight=torch.zeros(4, 23)),
        AdapterError,
        ["first.lora_A.weight", "first.lora_down.weight"],
    ),
}

HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
FILES = {
    "empty file": (b"", HeaderError, []),
    "seven bytes": (b"1234567", HeaderError, []),
    "text file": (b"<!doctype html><html>Sign in to download this file</html>\n" * 9, HeaderError, []),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90868376\n",
        HeaderError,
        [],
    ),
    "truncated in the header": (raw_safetensors(HEADER, b"1234")[:20], HeaderError, []),
    "truncated in the data": (raw_safetensors(HEADER, b"12"), HeaderError, []),
    "unknown dtype": (
        raw_safetensors({"a": {"dtype": "F48", "shape": [1], "data_offsets": [0, 6]}}, b"123456"),
        HeaderError,
        ["F48"],
    ),
    "header is a list": (raw_safetensors([1, 2], b""), HeaderError, []),
    "config is not JSON": (None, AdapterError, ["adapter_config.json"]),
}


@pytest.fixture(params=["pristine", "composed"])
def model(request, small, sha256):
    """A model in either state; afterwards its bytes are those before the test, and it can be used as if nothing was."""
    pristine = sha256(small)
    if request.param == "composed":
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["first", "point"], seed=5)), 0.7)])
    now = sha256(small)
    yield small
    assert sha256(small) == now, "the weights changed"
    if request.param == "composed":
        lora_mmap.set_lora_strength_v2(small, 1.0)
        assert sha256(small) == now, "the old composition cannot be repeated"
    assert lora_mmap.compose(small, [(good(small), 1.0)])
    assert lora_mmap.reset(small) is True
    assert sha256(small) == pristine, "the pristine weights are lost"


def assert_says(error, *words):
    message = str(error.value)
    missing = [word for word in words if str(word) not in message]
    assert not missing, f"{message!r} does not name {missing}"


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
@pytest.mark.parametrize("kind", ["file", "dict"])
def test_faulty_tensors(model, tmp_path, fault, kind):
    make, kind_of_error, words = TENSOR_FAULTS[fault]
    tensors = make(model)
    source, name = tensors, "dict"
    if kind == "file":
        source = write(tmp_path / "faulty.safetensors", tensors)
        name = source
    with pytest.raises(kind_of_error) as error:
        lora_mmap.compose(model, [(good(model), 0.1), (source, 1.0)])
    assert_says(error, "[", "]", name, *words)


@pytest.mark.parametrize("fault", FILES)
def test_faulty_files(model, tmp_path, fault):
    content, kind, words = FILES[fault]
    path = tmp_path / "adapter_model.safetensors"
    if content is None:
        write(path, good(model))
        (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha":')
    else:
        path.write_bytes(content)
    with pytest.raises(kind) as error:
        lora_mmap.compose(model, [(good(model), 0.1), (path, 1.0)])
    assert_says(error, tmp_path, *words)  # in safetensors' own words, so without the name of a function


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "8"},
        {"lora_alpha": NAN},
        {"lora_alpha": [1]},
        {"lora_alpha": 4, "alpha_pattern": ["first"]},
        {"lora_alpha": 4, "alpha_pattern": {"first": "x"}},
        {"lora_alpha": 4, "alpha_pattern": {"fir(st": 2}},
        ["lora_alpha"],
    ],
    ids=json.dumps,
)
def test_malformed_configuration(model, tmp_path, config):
    write(tmp_path / "adapter_model.safetensors", keyed(adapter_for(model, ["first"])))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(tmp_path, 1.0)])
    assert_says(error, "adapter_config.json")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00lsq\x00\x85R."])
def test_faulty_pickles(model, tmp_path, suffix, content):
    path = tmp_path / f"adapter{suffix}"
    path.write_bytes(content)
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}])
def test_pickles_of_something_else(model, tmp_path, content):
    path = tmp_path / "adapter.pt"
    torch.save(content, path)
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)


def test_missing_file(model, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        lora_mmap.compose(model, [(tmp_path / "nowhere.safetensors", 1.0)])
    assert_says(error, tmp_path / "nowhere.safetensors")


def test_missing_pickle(model, tmp_path):
    with pytest.raises(FileNotFoundError):
        lora_mmap.compose(model, [(tmp_path / "nowhere.pt", 1.0)])


@pytest.mark.parametrize("several", [False, True])
def test_directory_without_an_adapter(model, tmp_path, several):
    if several:
        for name in "ab":
            write(tmp_path / f"{name}.safetensors", good(model))
    with pytest.raises(IsADirectoryError) as error:
        lora_mmap.compose(model, [(tmp_path, 1.0)])
    assert_says(error, tmp_path, "several" if several else "none")


def test_fifo(model, tmp_path):
    """Something that would block for ever when opened like a file."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(OSError, match=r"pipe\.safetensors"):
        lora_mmap.compose(model, [(tmp_path / "pipe.safetensors", 1.0)])


@contextlib.contextmanager
def unprivileged():
    """Root may read everything, so root steps down for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_permission_denied(model, tmp_path):
    path = write(tmp_path / "secret.safetensors", good(model))
    path.chmod(0)
    with unprivileged(), pytest.raises(PermissionError) as error:
        lora_mmap.compose(model, [(path, 1.0)])
    assert_says(error, path)


@pytest.mark.parametrize("strength", [NAN, INF, -INF, "strong", None, 1j])
def test_impossible_strength(model, strength):
    with pytest.raises(ArgumentError, match=r"\[compose\] adapters\[1\] strength"):
        lora_mmap.compose(model, [(good(model), 1.0), (good(model), strength)])
    with pytest.raises(ArgumentError, match=r"\[set_lora_strength_v2\]"):
        lora_mmap.set_lora_strength_v2(model, strength)


def test_scale_that_overflows(model):
    with pytest.raises(LoraMmapError, match=r"first|conv|second"):
        lora_mmap.compose(model, [(good(model), 1e300)])


@pytest.mark.parametrize(
    "adapters",
    [
        "a.safetensors",
        None,
        3,
        {"a": 1},
        [("a.safetensors",)],
        ["a.safetensors"],
        [("a", 1.0, None, None)],
        [(3, 1.0)],
        [(None, 1.0)],
    ],
    ids=repr,
)
def test_impossible_arguments(model, adapters):
    with pytest.raises(LoraMmapError, match=r"^\[(compose|open_adapter)\]"):
        lora_mmap.compose(model, adapters)


def test_unknown_restore_tier(model):
    with pytest.raises(ArgumentError, match="restore is 'maybe'"):
        lora_mmap.compose(model, [(good(model), 1.0)], restore="maybe")


@pytest.mark.parametrize(
    "value", [3.5j, "text", None, [1.0], torch.zeros(2).to_sparse(), torch.empty(2, device="meta")]
)
def test_dict_with_something_else_than_tensors(model, value):
    tensors = good(model) | {"third.lora_A.weight": value}
    with pytest.raises(AdapterError) as error:
        lora_mmap.compose(model, [(tensors, 1.0)])
    assert_says(error, "third.lora_A.weight")


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_overflow_of_the_weight_dtype(small, sha256, kind):
    """A result beyond the weight's range is an error that names module, adapter and strength; all layers roll back."""
    model = small.to(torch.float16 if kind == "fp16" else torch.bfloat16)
    pristine = sha256(model)
    largest = torch.finfo(model.first.weight.dtype).max
    down, up = torch.zeros(1, 37), torch.zeros(29, 1)
    down[0, 36], up[28, 0] = largest**0.5, largest**0.5
    tensors = good(model) | keyed({"second": (down, up)}, alpha=1)
    lora_mmap.compose(model, [(tensors, 0.5)])
    composed = sha256(model)
    with pytest.raises(FusionOverflowError) as error:
        lora_mmap.compose(model, [(tensors, 1.5)])
    assert_says(error, "[compose]", "second.weight", "1.5", "dict")
    assert sha256(model) == composed
    with pytest.raises(FusionOverflowError):
        lora_mmap.set_lora_strength_v2(model, 4.0)
    assert sha256(model) == composed
    lora_mmap.reset(model)
    assert sha256(model) == pristine
    with pytest.raises(FusionOverflowError):
        lora_mmap.compose(model, [(tensors, 1.5)], restore="none")
    assert sha256(model) == pristine


def test_a_model_without_matches(model, tmp_path):
    path = write(tmp_path / "other.safetensors", keyed({"blocks.0.attn.first": factors(8, 8)}))
    with pytest.raises(UnmatchedKeysError, match=r"blocks\.0\.attn\.first"):
        lora_mmap.compose(model, [(path, 1.0)], strict=True)
    report = lora_mmap.check(model, path)
    assert not report
    assert report.unmatched == ["blocks.0.attn.first"]
    assert "blocks.0.attn.first" in str(report)


def test_no_match_is_a_false_report_and_a_warning(small, sha256, caplog):
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed({"blocks.0.frist": factors(8, 8)}), 1.0)])
    assert not report
    assert report.to_dict()["keys"]["blocks.0.frist.lora_A.weight"]["outcome"] == "absent"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert sha256(small) == before


def test_a_checkpoint_instead_of_an_adapter(small, tmp_path, sha256, caplog):
    """The model's own weights are a safetensors file too: every key is reported unknown, and a warning says so."""
    path = write(tmp_path / "model.safetensors", dict(small.state_dict()))
    before = sha256(small)
    report = lora_mmap.compose(small, [(path, 1.0)])
    assert not report
    outcomes = {entry["outcome"] for entry in report.to_dict()["keys"].values()}
    assert outcomes == {"unknown"}
    assert len(report.to_dict()["keys"]) == len(small.state_dict())
    assert sha256(small) == before
    with pytest.raises(UnmatchedKeysError, match="no known suffix"):
        lora_mmap.compose(small, [(path, 1.0)], strict=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bit_weights_are_reported_and_never_fused(small, dtype, sha256):
    data = small.second.weight.detach().to(dtype)
    small.second.weight = nn.Parameter(data, requires_grad=False)
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed(adapter_for(small, ["second"])), 1.0)])
    entry = report.to_dict()["keys"]["second.lora_A.weight"]
    assert not report
    assert entry["outcome"] == "unsupported"
    assert str(dtype) in entry["reason"]
    with pytest.raises(UnmatchedKeysError, match="second"):
        lora_mmap.compose(small, [(keyed(adapter_for(small, ["second"])), 1.0)], strict=True)
    assert sha256(small) == before


def test_meta_weights_are_reported(small, sha256):
    pairs = adapter_for(small, ["first", "second"])
    small.second.to("meta")
    report = lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    assert report.applied == 1
    assert report.to_dict()["keys"]["second.lora_B.weight"]["outcome"] == "unsupported"
    assert "meta" in report.to_dict()["keys"]["second.lora_B.weight"]["reason"]
    assert lora_mmap.reset(small)


def test_parametrized_weights_are_reported(small, sha256):
    pairs = adapter_for(small, ["first", "second"])
    nn.utils.parametrizations.weight_norm(small.second)
    before = sha256(small)
    report = lora_mmap.compose(small, [(keyed(pairs), 1.0)])
    assert report.applied == 1
    assert report.to_dict()["keys"]["second.lora_B.weight"]["outcome"] == "unsupported"
    lora_mmap.reset(small)
    assert sha256(small) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_weights_are_refused(small):
    pairs = adapter_for(small, ["first"])
    small.cuda()
    with pytest.raises(ModelError, match=r"\[compose\] weight 'first\.weight' is on cuda"):
        lora_mmap.compose(small, [(keyed(pairs), 1.0)])


def test_a_closed_adapter(model, tmp_path):
    adapter = lora_mmap.open_adapter(write(tmp_path / "a.safetensors", good(model)))
    adapter.close()
    with pytest.raises(ClosedError, match=r"\[compose\].*a\.safetensors.*closed"):
        lora_mmap.compose(model, [(adapter, 1.0)])


@pytest.mark.parametrize("kind", ["file", "dict"])
def test_an_adapter_closed_by_its_owner_while_composed(small, tmp_path, sha256, kind):
    """Its memory is gone: a strength change is an error, never a read of freed memory."""
    pristine = sha256(small)
    source = good(small) if kind == "dict" else write(tmp_path / "a.safetensors", good(small))
    adapter = lora_mmap.open_adapter(source)
    lora_mmap.compose(small, [(adapter, 1.0)])
    composed = sha256(small)
    adapter.close()
    with pytest.raises(ClosedError):
        lora_mmap.set_lora_strength_v2(small, 0.5)
    assert sha256(small) == composed
    assert lora_mmap.reset(small)
    assert sha256(small) == pristine


@pytest.mark.parametrize("thing", [None, "model", 3, torch.zeros(2, 2), {}], ids=repr)
def test_no_model(thing):
    for call in (
        lambda: lora_mmap.compose(thing, []),
        lambda: lora_mmap.reset(thing),
        lambda: lora_mmap.check(thing, []),
        lambda: lora_mmap.set_lora_strength_v2(thing, 1.0),
    ):
        with pytest.raises(ArgumentError, match=r"expected a torch\.nn\.Module"):
            call()
