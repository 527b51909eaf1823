"""Strengths of adapters on pipelines, and that weights depend on nothing but what is active at which strength."""

import random

import pytest
import torch
from composed_directly import assert_bytes, composed_parts
from tiny_pipelines import parts_of, tiny_pipeline

import lora_mmap
from lora_mmap.errors import ArgumentError


def assert_holds(pipeline, adapters, sha256, dtype=torch.float32):
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", adapters, dtype), sha256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_five_adapters_with_changing_weights(files, sha256, dtype):
    pipeline = tiny_pipeline("sd15", dtype)
    pristine = {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()}
    draw = random.Random(5)
    for name in files:
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name, lora_scale=0.2)
    assert_holds(pipeline, [(files[name], 0.2) for name in files], sha256, dtype)
    for _ in range(6):
        names = draw.sample(list(files), draw.randint(1, 5))
        weights = [round(draw.uniform(-1, 1), 2) for _ in names]
        report = lora_mmap.set_and_fuse_adapters(pipeline, names, weights)
        assert report
        assert lora_mmap.get_active_adapters(pipeline) == names
        adapters = [(files[name], weight) for name, weight in zip(names, weights, strict=True)]
        assert_holds(pipeline, adapters, sha256, dtype)
    assert lora_mmap.unfuse_lora(pipeline) is True
    assert lora_mmap.unfuse_lora(pipeline) is False
    assert {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()} == pristine


def test_a_change_of_strength_reads_no_file(pipeline, files):
    for name in ("a", "b"):
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name)
    report = lora_mmap.set_and_fuse_adapters(pipeline, ["b", "a"], [0.5, 0.25])
    assert report
    assert (report.bytes_read, report.files_opened, report.keys_classified) == (0, 0, 0)


def test_weights_by_component(pipeline, files, sha256):
    only_unet = {"text_encoder": 0.0}
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale={"unet": 0.5, "text_encoder": -0.5})
    assert_holds(pipeline, [(files["a"], {"unet": 0.5, "text_encoder": -0.5})], sha256)
    lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b", lora_scale={"unet": 0.25})  # 1.0 where left out
    lora_mmap.set_and_fuse_adapters(pipeline, ["a", "b"], [{"unet": 0.75}, 0.5])
    assert_holds(pipeline, [(files["a"], {"unet": 0.75}), (files["b"], 0.5)], sha256)
    lora_mmap.set_and_fuse_adapters(pipeline, ["a", "b"], [only_unet, only_unet])
    assert_holds(pipeline, [(files["a"], only_unet), (files["b"], only_unet)], sha256)


def test_one_weight_for_all_names(pipeline, files, sha256):
    for name in ("a", "b"):
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name)
    lora_mmap.set_and_fuse_adapters(pipeline, ["a", "b"], 0.5)
    assert_holds(pipeline, [(files["a"], 0.5), (files["b"], 0.5)], sha256)
    lora_mmap.set_and_fuse_adapters(pipeline, "b", {"unet": 0.25})
    assert_holds(pipeline, [(files["b"], {"unet": 0.25})], sha256)


def test_a_list_of_scales_is_along_target(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], target=["text_encoder", "unet"], lora_scale=[0.25, 0.75])
    assert_holds(pipeline, [(files["a"], {"unet": 0.75, "text_encoder": 0.25})], sha256)


def test_named_adapters_without_weights_are_taken_at_one(pipeline, files, sha256):
    for name in ("a", "b"):
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name, lora_scale=0.3)
    lora_mmap.set_and_fuse_adapters(pipeline, ["b", "a"])
    assert_holds(pipeline, [(files["b"], 1.0), (files["a"], 1.0)], sha256)
    lora_mmap.set_and_fuse_adapters(pipeline, ["b", "a"], [None, 0.5])
    assert_holds(pipeline, [(files["b"], 1.0), (files["a"], 0.5)], sha256)


def test_strengths_are_remembered(pipeline, files, sha256):
    adapters = [(files["a"], {"unet": 0.5, "text_encoder": 0.25}), (files["d"], -0.5), (files["e"], 0.125)]
    for (path, weight), name in zip(adapters, "ade", strict=True):
        lora_mmap.load_and_fuse_lora(pipeline, path, name, lora_scale=weight)
    lora_mmap.set_and_fuse_adapters(pipeline)  # the active ones, as they are
    assert_holds(pipeline, adapters, sha256)
    lora_mmap.unfuse_lora(pipeline)
    lora_mmap.set_and_fuse_adapters(pipeline)  # those active last
    assert_holds(pipeline, adapters, sha256)


def test_what_was_taken_out_earlier_does_not_come_back(pipeline, files, sha256):
    """Those active last: not what one component held before a step that left it with nothing."""
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    lora_mmap.load_and_fuse_lora(pipeline, files["d"], "d", lora_scale=0.25)  # the UNet's only
    lora_mmap.set_and_fuse_adapters(pipeline, "d", 0.75)
    lora_mmap.unfuse_lora(pipeline)
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["d"]
    assert_holds(pipeline, [(files["d"], 0.75)], sha256)


def test_never_active_ones_are_all_taken_at_one(pipeline, files, sha256):
    """In the order of loading, whichever components they are for."""
    for name in "ecadb":
        lora_mmap.load_lora_and_optionally_fuse(pipeline, files[name], name, fuse=False)
    assert lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == list("ecadb")
    assert_holds(pipeline, [(files[name], 1.0) for name in "ecadb"], sha256)


def test_a_name_that_is_used_again_has_the_place_of_its_second_use(pipeline, files, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b")
    lora_mmap.delete_adapters(pipeline)
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["b"], "b", fuse=False)
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["a"], "a", fuse=False)
    lora_mmap.set_and_fuse_adapters(pipeline)
    assert lora_mmap.get_active_adapters(pipeline) == ["b", "a"]
    assert_holds(pipeline, [(files["b"], 1.0), (files["a"], 1.0)], sha256)


@pytest.mark.parametrize("precision", ["native", "fp32"])
def test_the_precision_of_held_factors_changes_no_bit(pipeline, files, sha256, precision):
    lora_mmap.load_and_fuse_lora(pipeline, files["b"], lora_scale=0.3, memory_efficient=precision == "native")
    lora_mmap.load_and_fuse_lora(pipeline, files["c"], lora_scale=0.6, memory_efficient=precision == "native")
    assert_holds(pipeline, [(files["b"], 0.3), (files["c"], 0.6)], sha256)


class Walk:
    """Random calls on a pipeline, beside a record of what they must come to."""

    def __init__(self, pipeline, files, seed):
        self.pipeline, self.files = pipeline, files
        self.draw = random.Random(seed)
        self.loaded, self.active, self.last = [], [], []
        self.once_active = []  # in the order of their last activation

    def step(self):
        calls = [self.load, self.load, self.choose, self.choose, self.repeat, self.take_out, self.delete]
        self.draw.choice(calls if self.loaded else [self.load])()

    def load(self):
        free = [name for name in self.files if name not in self.loaded]
        if not free:
            return
        name, fuse, scale = self.draw.choice(free), self.draw.random() < 0.7, self.weight()
        lora_mmap.load_lora_and_optionally_fuse(
            self.pipeline,
            self.files[name],
            name,
            fuse=fuse,
            lora_scale=scale if fuse else None,
            use_cache=self.draw.random() < 0.5,
        )
        self.loaded.append(name)
        if fuse:
            self.activate([*self.active, (name, scale)], [name])

    def choose(self):
        names = self.draw.sample(self.loaded, self.draw.randint(1, len(self.loaded)))
        weights = [self.weight() for _ in names]
        lora_mmap.set_and_fuse_adapters(self.pipeline, names, weights)
        self.activate(list(zip(names, weights, strict=True)))

    def repeat(self):
        lora_mmap.set_and_fuse_adapters(self.pipeline)
        never = [name for name in self.loaded if name not in self.once_active]
        self.activate(self.active or self.last or [(name, 1.0) for name in (*never, *self.once_active)])

    def activate(self, adapters, names=None):
        self.active, self.last = adapters, []
        names = names or [name for name, _ in adapters]
        self.once_active = [name for name in self.once_active if name not in names] + names

    def take_out(self):
        assert lora_mmap.unfuse_lora(self.pipeline) is bool(self.active)
        self.last, self.active = self.active or self.last, []  # a second time changes nothing

    def delete(self):
        gone = self.draw.sample(self.loaded, self.draw.randint(1, len(self.loaded)))
        lora_mmap.delete_adapters(self.pipeline, gone, safe_delete=self.draw.random() < 0.5)
        self.loaded = [name for name in self.loaded if name not in gone]
        self.once_active = [name for name in self.once_active if name not in gone]
        if self.active:
            self.active = [(name, weight) for name, weight in self.active if name not in gone]
            self.last = []
        self.last = [(name, weight) for name, weight in self.last if name not in gone]

    def weight(self):
        return self.draw.choice([0.25, -0.5, 0.7, {"unet": 0.3}, {"text_encoder": -0.4, "unet": 1.2}])


@pytest.mark.parametrize("seed", range(3))
def test_weights_do_not_depend_on_the_way_to_them(files, sha256, seed):
    pipeline = tiny_pipeline("sd15", torch.bfloat16)
    walk = Walk(pipeline, files, seed)
    for _ in range(25):
        walk.step()
        assert lora_mmap.get_active_adapters(pipeline) == [name for name, _ in walk.active]
        assert_holds(pipeline, [(files[name], weight) for name, weight in walk.active], sha256, torch.bfloat16)
    lora_mmap.clear_lora_cache()


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0], "1 adapter_weights"),
        ([1.0, float("nan")], "nan"),
        ([1.0, {"vae": 1.0}], "vae"),
        (["strong", 1.0], "strong"),
    ],
)
def test_weights_that_are_none(pipeline, files, sha256, weights, told):
    for name in ("a", "b"):
        lora_mmap.load_and_fuse_lora(pipeline, files[name], name, lora_scale=0.5)
    with pytest.raises(ArgumentError, match=told):
        lora_mmap.set_and_fuse_adapters(pipeline, ["a", "b"], weights)
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "b"]
    assert_holds(pipeline, [(files["a"], 0.5), (files["b"], 0.5)], sha256)


def test_nothing_to_set(pipeline):
    with pytest.raises(ArgumentError, match="no adapter is loaded"):
        lora_mmap.set_and_fuse_adapters(pipeline)
