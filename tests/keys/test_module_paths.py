"""Path patterns as writing uses them: what they capture, dotted and flattened, and the path of such captures."""

import pytest

from lora_mmap.families.module_paths import path_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("blocks.{i}.to_q", "blocks.12.to_q", {"i": "12"}),
        ("blocks.{i}.to_q", "blocks_12_to_q", {"i": "12"}),
        ("blocks.{i}.to_q", "blocks.x.to_q", None),
        ("blocks.{i}.to_q", "blocksx12xto_q", None),
        ("attn.{m:to_q|to_out.0}", "attn_to_out_0", {"m": "to_out.0"}),
        ("{s:|audio_}table", "table", {"s": ""}),
        ("bank.{slot:*}.w", "bank.first_one.w", {"slot": "first_one"}),
        ("input_blocks.{i*3+j+1}.0", "input_blocks.5.0", {"i": "1", "j": "1"}),
        ("input_blocks.{i*3+j+1}.0", "input_blocks.0.0", None),
        ("input_blocks.{i*3+3}.0.op", "input_blocks.6.0.op", {"i": "1"}),
        ("input_blocks.{i*3+3}.0.op", "input_blocks.5.0.op", None),
    ],
)
def test_captures(pattern, path, captures):
    assert path_pattern(pattern).captures(path) == captures


@pytest.mark.parametrize("path", ["up.1.2", "up.1.2.blocks.3"])
def test_what_is_optional_stays_as_it_was(path):
    pattern = path_pattern("up.{i}.{j}[.blocks.{k}]")
    for written in (path, path.replace(".", "_")):
        assert pattern.filled(pattern.captures(written)) == path


def test_an_index_beyond_its_level():
    assert path_pattern("input_blocks.{i*3+j+1}.0").filled({"i": "1", "j": "1"}) == "input_blocks.5.0"
    assert path_pattern("input_blocks.{i*3+j+1}.0").filled({"i": "1", "j": "3"}) is None
