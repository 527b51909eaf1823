"""In which order adapters are loaded, made active and remembered."""

import os
import signal

import pytest
from stand_in_pipelines import Pipeline, adapter, hashes

import lora_mmap
from lora_mmap.errors import ArgumentError
from lora_mmap.pipelines import fusing

UNET = {"unet": (3, 64)}
ENCODER = {"text_encoder": (2, 48)}


def test_those_that_are_only_loaded_keep_the_order_of_loading(sha256):
    pipeline = Pipeline()
    names = ["style", "Bee", "zebra", "apple", "k9"]
    for seed, name in enumerate(names):
        shapes = ENCODER if seed % 2 else UNET
        lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(seed, **shapes), name, fuse=False)
    assert lora_mmap.get_list_adapters(pipeline) == {
        "unet": ["style", "zebra", "k9"],
        "text_encoder": ["Bee", "apple"],
    }
    lora_mmap.set_and_fuse_adapters(pipeline, adapter_weights=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert lora_mmap.get_active_adapters(pipeline) == names
    twin = Pipeline()
    for seed, (name, strength) in enumerate(zip(names, [0.1, 0.2, 0.3, 0.4, 0.5], strict=True)):
        lora_mmap.load_and_fuse_lora(twin, adapter(seed, **(ENCODER if seed % 2 else UNET)), name, lora_scale=strength)
    assert hashes(pipeline, sha256) == hashes(twin, sha256)


def test_default_names_are_in_the_order_of_loading():
    pipeline = Pipeline()
    for seed, shapes in enumerate((UNET, ENCODER, ENCODER, UNET)):
        lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(seed, **shapes), fuse=False)
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == [f"default_{n}" for n in range(4)]


def test_the_order_of_names_is_the_order_of_activation():
    pipeline = Pipeline()
    for seed, name in enumerate("abc"):
        lora_mmap.load_and_fuse_lora(pipeline, adapter(seed), name)
    lora_mmap.set_and_fuse_adapters(pipeline, ["c", "a"])
    assert lora_mmap.get_active_adapters(pipeline) == ["c", "a"]
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["c", "a"]


@pytest.mark.parametrize("take_out", ["unfuse_lora", "reset"])
def test_what_was_active_last_comes_back(sha256, take_out):
    pipeline = Pipeline()
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1), "a", lora_scale={"unet": 0.3, "text_encoder": -2})
    lora_mmap.load_and_fuse_lora(pipeline, adapter(2), "b", lora_scale=0.7)
    lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(3), "c", fuse=False)
    fused = hashes(pipeline, sha256)
    if take_out == "reset":
        for module in pipeline.modules.values():
            lora_mmap.reset(module)
    else:
        lora_mmap.unfuse_lora(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == []
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "b"]
    assert hashes(pipeline, sha256) == fused


def test_a_name_that_is_used_again_is_another_adapter(sha256):
    pipeline, twin = Pipeline(), Pipeline()
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1), "a", lora_scale=0.3)
    lora_mmap.delete_adapters(pipeline, "a")
    lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(2), "a", fuse=False)
    lora_mmap.set_and_fuse_adapters(pipeline)
    lora_mmap.load_and_fuse_lora(twin, adapter(2), "a")
    assert hashes(pipeline, sha256) == hashes(twin, sha256)


def test_a_name_twice_is_refused(sha256):
    pipeline = Pipeline()
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1), "a")
    before = hashes(pipeline, sha256)
    with pytest.raises(ArgumentError, match=r"\[set_and_fuse_adapters\] adapter_names has 'a' more than once"):
        lora_mmap.set_and_fuse_adapters(pipeline, ["a", "a"], [0.5, 0.5])
    assert hashes(pipeline, sha256) == before


def test_a_strength_of_zero_is_active(sha256):
    pipeline = Pipeline()
    start = hashes(pipeline, sha256)
    lora_mmap.load_and_fuse_lora(pipeline, adapter(1), "a", lora_scale=0.0)
    assert hashes(pipeline, sha256) == start
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    lora_mmap.set_and_fuse_adapters(pipeline, "a")
    assert hashes(pipeline, sha256) != start
    lora_mmap.set_and_fuse_adapters(pipeline, "a", 0)
    assert hashes(pipeline, sha256) == start


def test_keys_of_one_component_are_not_missed_by_another(caplog):
    pipeline = Pipeline()
    report = lora_mmap.load_lora_and_optionally_fuse(pipeline, adapter(1), fuse=False)
    assert report
    assert report.unmatched == []
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    elsewhere = adapter(2) | {key.replace("blocks", "nowhere"): value for key, value in adapter(3).items()}
    report = lora_mmap.load_and_fuse_lora(pipeline, elsewhere)
    assert sorted(report.unmatched) == sorted({key.rpartition(".lora_")[0] for key in elsewhere if "nowhere" in key})
    assert "no place in any component for 7 modules" in str(report)
    with pytest.raises(lora_mmap.errors.UnmatchedKeysError, match=r"\[load_and_fuse_lora\] dict of .*nowhere"):
        lora_mmap.load_and_fuse_lora(Pipeline(), elsewhere, strict=True)
    assert lora_mmap.load_and_fuse_lora(Pipeline(), adapter(2), strict=True)


def test_what_was_composed_without_a_name_stays_until_others_are_chosen(sha256):
    pipeline, twin = Pipeline(), Pipeline()
    lora_mmap.compose(pipeline.unet, [(adapter(1, **UNET), 0.5)])
    lora_mmap.load_and_fuse_lora(pipeline, adapter(2, **UNET), "b")
    lora_mmap.compose(twin.unet, [(adapter(1, **UNET), 0.5), (adapter(2, **UNET), 1.0)])
    assert hashes(pipeline, sha256) == hashes(twin, sha256)
    lora_mmap.set_and_fuse_adapters(pipeline, "b")
    lora_mmap.compose(twin.unet, [(adapter(2, **UNET), 1.0)])
    assert hashes(pipeline, sha256) == hashes(twin, sha256)
    lora_mmap.unfuse_lora(pipeline)
    assert hashes(pipeline, sha256) == hashes(Pipeline(), sha256)


def test_a_late_ctrl_c_finds_the_adapter_loaded(sha256, monkeypatch):
    """It arrives when all weights are written: they stay, and the adapter is known by its name."""
    pipeline, start = Pipeline(), hashes(Pipeline(), sha256)
    original = fusing._let_go

    def interrupted(composition):
        original(composition)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(fusing, "_let_go", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lora_mmap.load_and_fuse_lora(pipeline, adapter(1), "a")
    monkeypatch.undo()
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    lora_mmap.set_and_fuse_adapters(pipeline, "a", 0.5)
    twin = Pipeline()
    lora_mmap.load_and_fuse_lora(twin, adapter(1), lora_scale=0.5)
    assert hashes(pipeline, sha256) == hashes(twin, sha256)
    assert lora_mmap.unfuse_lora(pipeline)
    assert hashes(pipeline, sha256) == start
