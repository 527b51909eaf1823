"""Names that nobody means well with: a clear outcome for each, the wrong module for none, and work that is linear."""

import itertools
import json
import sys

import pytest
import torch
from header_bytes import file_of
from spelled import hollow_file
from torch import nn

import lora_mmap
from lora_mmap.errors import AdapterError, LoraMmapError
from lora_mmap.families import key_tables


class Blocks(nn.Module):
    """``blocks.0.q``, its neighbour that differs in case, and the split projections of a Flux.1 block."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].q, self.blocks[0].Q = nn.Linear(8, 8), nn.Linear(8, 8)
        self.transformer_blocks = nn.ModuleList([nn.Module()])
        self.transformer_blocks[0].attn = nn.Module()
        for name in ("to_q", "to_k", "to_v"):
            self.transformer_blocks[0].attn.add_module(name, nn.Linear(8, 8, bias=False))


def pair(stem, rows=8):
    return {f"{stem}.lora_A.weight": torch.ones(2, 8), f"{stem}.lora_B.weight": torch.ones(rows, 2)}


def outcomes(tensors, model):
    keys = lora_mmap.check(model, tensors).to_dict()["keys"]
    assert keys.keys() == tensors.keys()
    return keys


HOSTILE = {
    "100 kB of letters": "x" * 100_000,
    "100 kB of dots": "." * 100_000,
    "100 kB of underscores": "_" * 100_000,
    "50,000 components": "a." * 50_000 + "q",
    "20,000 prefixes": "lora_unet_" * 20_000 + "blocks_0_q",
    "5,000 dotted prefixes": "transformer." * 5_000 + "blocks.0.q",
    "NUL at the end": "blocks.0.q\0",
    "NUL inside": "blocks.0\0.q",
    "NUL alone": "\0",
    "a newline": "blocks.0\n.q",
    "millions of digits": f"blocks.{'9' * 2_000_000}.q",
    "millions of zeros": f"blocks.{'0' * 2_000_000}.q",
    "2^64": "blocks.18446744073709551616.q",
    "2^32": "blocks.4294967296.q",
    "a leading zero": "blocks.00.q",
    "a sign": "blocks.-0.q",
    "a space": "blocks. 0.q",
    "another script's zero": "blocks.\u0660.q",
    "a path upwards": "../../blocks.0.q",
    "an empty component": "blocks..0.q",
    "an empty beginning": ".blocks.0.q",
    "an empty end": "blocks.0.q.",
    "dots": "..",
    "another case": "BLOCKS.0.q",
    "a letter that looks alike": "bl\u043ecks.0.q",
    "composed otherwise": "blo\u0301cks.0.q",
}
# Through a family's rule: numbers are copied as they are written, so 2^64 is not block 0.
HOSTILE_NUMBERS = {
    "2^64": "18446744073709551616",
    "2^32": "4294967296",
    "a leading zero": "00",
    "millions of digits": "9" * 2_000_000,
    "millions of zeros": "0" * 2_000_000,
}


@pytest.mark.parametrize("stem", HOSTILE.values(), ids=HOSTILE)
def test_nothing_hostile_lands_anywhere(stem, sha256):
    model = Blocks()
    before = sha256(model)
    keys = outcomes(pair(stem), model)
    assert {found["outcome"] for found in keys.values()} <= {"absent", "unknown"}
    assert all(found["reason"] and found["targets"] == [] for found in keys.values())
    assert sum(len(found["reason"]) for found in keys.values()) < 2_000  # the key is not repeated in its reason
    assert not lora_mmap.compose(model, [(pair(stem), 1.0)])
    assert sha256(model) == before


@pytest.mark.parametrize("number", HOSTILE_NUMBERS.values(), ids=HOSTILE_NUMBERS)
@pytest.mark.parametrize("spelling", ["double_blocks.{}.img_attn.qkv", "lora_unet_double_blocks_{}_img_attn_qkv"])
def test_no_number_is_read_as_another(spelling, number):
    assert {found["outcome"] for found in outcomes(pair(spelling.format(0), 24), Blocks()).values()} == {"applied"}
    found = outcomes(pair(spelling.format(number), 24), Blocks()).values()
    assert [(key["outcome"], key["targets"]) for key in found] == [("absent", [])] * 2


def test_case_tells_modules_apart():
    model = Blocks()
    keys = outcomes({**pair("blocks.0.q"), **pair("blocks.0.Q"), **pair("lora_unet_blocks_0_Q")}, model)
    assert {to["module"] for to in keys["blocks.0.q.lora_A.weight"]["targets"]} == {"blocks.0.q"}
    assert {to["module"] for to in keys["blocks.0.Q.lora_A.weight"]["targets"]} == {"blocks.0.Q"}
    assert keys["lora_unet_blocks_0_Q.lora_A.weight"]["outcome"] == "unsupported"  # the same elements twice in one file


@pytest.mark.parametrize("key", ["", ".", ".alpha", "alpha", "x", "x.LORA_A", "\0"])
def test_what_ends_in_no_suffix_is_unknown(key):
    (found,) = outcomes({key: torch.ones(2, 8)}, Blocks()).values()
    assert found["outcome"] == "unknown"
    assert found["reason"]


@pytest.mark.parametrize(
    "key",
    [".lora_A.weight", "lora_A.weight", "x.LORA_A.weight", "blocks.0.q.weight", "..weight", "x.lora_A.weight\0"],
)
def test_what_ends_like_a_models_own_weight_is_never_applied(key):
    (found,) = outcomes({key: torch.ones(8, 8)}, Blocks()).values()
    assert found["outcome"] in ("unknown", "absent", "unsupported", "ignored")
    assert found["reason"]


@pytest.mark.parametrize("key", ["blocks.0.q\udc80.lora_A.weight", "\ud800.lora_A.weight", "\udfff\ud800"])
def test_half_a_surrogate_pair_in_a_dict_is_refused(key):
    with pytest.raises(AdapterError, match=r"\[open_adapter\] dict: key '.*\\ud.*' has half a surrogate pair"):
        lora_mmap.check(Blocks(), {**pair("blocks.0.q"), key: torch.ones(2, 8)})


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc80", r"\udfff\ud800"])
def test_half_a_surrogate_pair_in_a_file_is_refused(tmp_path, escape):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(
        file_of(f'{{"{escape}.lora_A.weight":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}', bytes(4))
    )
    with pytest.raises(LoraMmapError, match="surrogate"):
        lora_mmap.open_adapter(path)


def test_a_whole_surrogate_pair_and_nul_in_a_file(tmp_path):
    path = hollow_file.write(
        tmp_path / "adapter.safetensors", dict.fromkeys(["\U0001d11e.alpha", "a\0b.alpha"], ("F32", ()))
    )
    with lora_mmap.open_adapter(path) as adapter:
        assert adapter.keys() == ["\U0001d11e.alpha", "a\0b.alpha"]
        assert adapter.describe()["keys"].keys() == set(adapter.keys())


def test_prefixes_are_counted_up_to_a_bound():
    """However often they repeat, a stem is tried from a bounded number of places."""
    for count in (100, 10_000):
        (group,) = key_tables().grammar.classify(["model." * count + "x.alpha"]).groups()
        assert len(group[2]) == 16


def adversarial_keys(count):
    """Long common beginnings, unknown endings, modules that flatten alike and repeated prefixes, in equal parts."""
    keys = []
    for i in range(count // 5):
        keys += [
            f"transformer_blocks.{i}.attn.to_q.lora_A.weight",
            f"lora_unet_{'a_' * 20}{i}.alpha",
            f"blocks.{i}.q.weight",
            f"base_model.model.{'model.' * 4}{i}.lora_B.weight",
            f"blocks_{i}.q_{i}.lora_A.{i}.weight",
        ]
    return keys


def calls_to_check(path, model):
    """How many functions Python enters, its own and native ones, from the file to the finished report."""
    lora_mmap.check(model, {"x.alpha": torch.ones(1)})  # what is made once, whatever the keys
    count = 0

    def on_event(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(on_event)
    try:
        report = lora_mmap.check(model, path).to_dict()
    finally:
        sys.setprofile(None)
    return count, report


def test_the_work_grows_with_the_keys_and_no_faster(tmp_path):
    model = Blocks()
    calls, sizes = [], []
    for count in (2_000, 4_000, 8_000):
        tensors = dict.fromkeys(adversarial_keys(count), ("F16", (1, 1)))
        path = hollow_file.write(tmp_path / f"{count}.safetensors", tensors)
        entered, report = calls_to_check(path, model)
        assert report["keys"].keys() == tensors.keys()
        calls.append(entered)
        sizes.append(len(json.dumps(report["keys"])))
    assert calls[2] - calls[1] < 2.2 * (calls[1] - calls[0])
    assert sizes[2] < 2.2 * sizes[1]


@pytest.mark.parametrize("spelling", ["{prefixes}blocks.0.q.{factor}.weight", "blocks.0.q.{factor}.a{number}.weight"])
def test_one_module_named_again_and_again(tmp_path, spelling):
    """Prefixes nest in any order, and adapters have any name: all of these are for the same elements."""
    model, calls = Blocks(), []
    prefixes = ("module.", "transformer.", "unet.", "base_model.model.")
    for digits in (4, 5, 6):
        orders = map("".join, itertools.product(prefixes, repeat=digits))
        tensors = {
            spelling.format(prefixes=order, factor=factor, number=number): ("F16", shape)
            for number, order in enumerate(itertools.islice(orders, 2 ** (digits + 4)))
            for factor, shape in (("lora_A", (2, 8)), ("lora_B", (8, 2)))
        }
        path = hollow_file.write(tmp_path / f"{digits}.safetensors", tensors)
        calls.append(calls_to_check(path, model)[0])
    assert calls[2] - calls[1] < 2.2 * (calls[1] - calls[0])


def test_200_000_keys(tmp_path):
    tensors = dict.fromkeys(adversarial_keys(200_000), ("F16", (1, 1)))
    path = hollow_file.write(tmp_path / "adapter.safetensors", tensors)
    report = lora_mmap.check(Blocks(), path).to_dict()
    assert report["keys_classified"] == 200_000
    assert report["keys"].keys() == tensors.keys()
    assert {found["outcome"] for found in report["keys"].values()} <= {"absent", "unknown", "unsupported", "ignored"}
    assert all(found["reason"] for found in report["keys"].values())
