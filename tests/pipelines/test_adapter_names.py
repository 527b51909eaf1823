"""Adapters by name: which are loaded, which are active, in which order, and what becomes of names that are taken."""

import pytest
from composed_directly import assert_bytes, composed_parts
from tiny_pipelines import parts_of, tiny_pipeline

import lora_mmap
from lora_mmap import LoraWarning


def assert_holds(pipeline, adapters, sha256):
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", adapters), sha256)


def test_default_names(pipeline, files):
    for name in "abc":
        lora_mmap.load_and_fuse_lora(pipeline, files[name])
    assert lora_mmap.get_active_adapters(pipeline) == ["default_0", "default_1", "default_2"]


def test_default_names_pass_over_those_that_are_taken(pipeline, files):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "default_1")
    lora_mmap.load_and_fuse_lora(pipeline, files["b"])
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["c"], fuse=False)
    lora_mmap.set_and_fuse_adapters(pipeline, ["default_2", "default_0"])
    assert lora_mmap.get_active_adapters(pipeline) == ["default_2", "default_0"]
    lora_mmap.delete_adapters(pipeline, "default_0")
    lora_mmap.load_and_fuse_lora(pipeline, files["d"])
    assert sorted(lora_mmap.get_active_adapters(pipeline)) == ["default_0", "default_2"]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("fused_before", [True, False])
def test_a_name_that_is_taken_is_ignored(pipeline, files, sha256, fuse, fused_before):
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["a"], "style", fuse=fused_before)
    before = {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()}
    with pytest.warns(LoraWarning, match="style"):
        report = lora_mmap.load_lora_and_optionally_fuse(pipeline, files["b"], "style", fuse=fuse)
    assert not report
    assert report.bytes_read == report.files_opened == 0
    assert {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()} == before
    assert lora_mmap.get_active_adapters(pipeline) == (["style"] if fused_before else [])
    lora_mmap.set_and_fuse_adapters(pipeline, "style", 0.5)
    assert_holds(pipeline, [(files["a"], 0.5)], sha256)


def test_a_name_of_one_component_is_taken_for_all(pipeline, files):
    lora_mmap.load_and_fuse_lora(pipeline, files["e"], "e")  # the text encoder's only
    with pytest.warns(LoraWarning, match="'e'"):
        assert not lora_mmap.load_and_fuse_lora(pipeline, files["d"], "e")  # the UNet's only


def test_warnings_point_at_the_caller(pipeline, files):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    with pytest.warns(LoraWarning) as taken:
        lora_mmap.load_and_fuse_lora(pipeline, files["b"], "a")
    with pytest.warns(LoraWarning) as unknown:
        lora_mmap.set_and_fuse_adapters(pipeline, ["a", "nobody"], [1.0, 1.0])
    assert [warning.filename for warning in (*taken, *unknown)] == [__file__, __file__]


def test_unknown_names_are_ignored(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    with pytest.warns(LoraWarning, match="nobody"):
        assert lora_mmap.set_and_fuse_adapters(pipeline, ["nobody", "a"], [9.0, -0.5])
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    assert_holds(pipeline, [(files["a"], -0.5)], sha256)


def test_the_order_is_that_of_activation(pipeline, files):
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["a"], "a", fuse=False)
    lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b")
    lora_mmap.load_and_fuse_lora(pipeline, files["d"], "d")
    lora_mmap.load_and_fuse_lora(pipeline, files["e"], "e")
    assert lora_mmap.get_active_adapters(pipeline) == ["b", "d", "e"]
    lora_mmap.set_and_fuse_adapters(pipeline, ["e", "a", "d", "b"])
    assert lora_mmap.get_active_adapters(pipeline) == ["e", "a", "d", "b"]
    lora_mmap.delete_adapters(pipeline, ["a"])
    assert lora_mmap.get_active_adapters(pipeline) == ["e", "d", "b"]
    assert lora_mmap.unfuse_lora(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == []
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["e", "d", "b"]


def test_what_was_never_fused_is_in_nobodys_weights(pipeline, files, sha256):
    report = lora_mmap.load_lora_and_optionally_fuse(pipeline, files["a"], "a", fuse=False)
    assert report
    assert report["unet"].dry_run
    assert_holds(pipeline, [], sha256)
    assert lora_mmap.get_active_adapters(pipeline) == []
    assert lora_mmap.unfuse_lora(pipeline) is False


def test_a_strength_for_what_is_not_fused_is_told(pipeline, files, sha256):
    with pytest.warns(LoraWarning, match="lora_scale"):
        lora_mmap.load_lora_and_optionally_fuse(pipeline, files["a"], "a", fuse=False, lora_scale=0.25)
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert_holds(pipeline, [(files["a"], 1.0)], sha256)


@pytest.mark.parametrize("safe_delete", [True, False])
def test_deleting(pipeline, files, sha256, safe_delete):
    """Others stay as if they had been composed alone, whichever way OneDiffX would have gone."""
    for name, scale in (("a", 0.5), ("b", -0.25), ("c", 0.75), ("d", 1.5)):
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name, lora_scale=scale)
    lora_mmap.delete_adapters(pipeline, ["b", "d"], safe_delete=safe_delete)
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "c"]
    assert_holds(pipeline, [(files["a"], 0.5), (files["c"], 0.75)], sha256)
    lora_mmap.delete_adapters(pipeline, "a", safe_delete=safe_delete)
    assert_holds(pipeline, [(files["c"], 0.75)], sha256)
    with pytest.warns(LoraWarning, match="'b'"):
        lora_mmap.set_and_fuse_adapters(pipeline, ["b", "c"], [1.0, 0.75])
    lora_mmap.delete_adapters(pipeline, safe_delete=safe_delete)
    assert lora_mmap.get_active_adapters(pipeline) == []
    assert_holds(pipeline, [], sha256)


def test_deleting_what_is_loaded_and_not_active(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["b"], "b", fuse=False)
    lora_mmap.delete_adapters(pipeline, "b")
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    assert_holds(pipeline, [(files["a"], 0.5)], sha256)
    lora_mmap.load_and_fuse_lora(pipeline, files["c"], "b")  # the name is free
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "b"]


def test_deleted_adapters_are_not_among_those_active_last(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b", lora_scale=0.25)
    lora_mmap.unfuse_lora(pipeline)
    lora_mmap.delete_adapters(pipeline, "a")
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["b"]
    assert_holds(pipeline, [(files["b"], 0.25)], sha256)


def test_deleting_what_nobody_loaded(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    with pytest.raises(lora_mmap.errors.ArgumentError, match="nobody"):
        lora_mmap.delete_adapters(pipeline, ["a", "nobody"])
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    assert_holds(pipeline, [(files["a"], 1.0)], sha256)


def test_another_pipeline_of_the_same_class_knows_nothing_of_it(pipeline, files):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    assert lora_mmap.get_active_adapters(tiny_pipeline("sd15")) == []
