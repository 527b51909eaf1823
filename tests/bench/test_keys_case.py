"""The keys that the ``keys`` case classifies, and what its result says. No timing is judged here."""

from pathlib import Path

import pytest

from bench.cases import keys as keys_case
from bench.key_names import in_files, shuffled
from bench.peers import sequential_regex
from bench.registry import Settings
from lora_mmap.families import key_tables


def test_keys_are_as_many_as_asked_for_and_all_different():
    keys = in_files(5_000)
    assert len(keys) == len(set(keys)) == 5_000
    assert shuffled(keys) == shuffled(keys) != keys
    assert sorted(shuffled(keys)) == sorted(keys)


def test_every_key_is_one_that_both_know():
    keys = in_files(5_000)
    assert key_tables().grammar.classify(keys).unknown == []
    assert "" not in sequential_regex.classify(keys)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("lora_unet_double_blocks_7_img_attn_qkv.alpha", ("double_blocks.7.img_attn.qkv", "qkv", "alpha")),
        ("transformer.transformer_blocks.3.attn.to_q.lora_B.weight", ("transformer_blocks.3.attn.to_qkv", "q", "up")),
        ("diffusion_model.blocks.1.ffn.2.lora_A.default.weight", ("blocks.1.ffn.2", "2", "down")),
        ("lora_unet_nowhere.alpha", ("", "nowhere", "alpha")),
        ("blocks.1.ffn.2.running_mean", ("", "", "")),
    ],
)
def test_the_peer_does_what_it_stands_for(key, found):
    ((finding,),) = sequential_regex.classify([key]).values()
    assert finding == found


def test_twice_the_families_are_twice_the_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(keys_case, "_KEYS", 20_000)
    result = keys_case.run(Settings(quick=True, repeats=1, warm_allocator=False, scratch=tmp_path))
    assert {row.contender for row in result.rows} == {"lora_mmap", "lora_mmap, families doubled", "sequential-regex"}
    assert {row.variant for row in result.rows} == {"in file order", "shuffled"}
    assert len(result.goals) == 4
    assert Path(keys_case.__file__).stem == result.name
