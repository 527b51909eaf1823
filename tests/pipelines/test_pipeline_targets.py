"""What a call is about: components that are named, a module or a dict in place of a pipeline, components that pipelines
share, and where an adapter may come from."""

import types

import pytest
import torch
from adapter_files import saved_by_diffusers
from composed_directly import assert_bytes, composed_parts
from kohya_files import kohya_file
from safetensors.torch import load_file
from tiny_pipelines import KINDS, assembled, parts_of, tiny_pipeline

import lora_mmap
from lora_mmap import LoraWarning
from lora_mmap.errors import ArgumentError


@pytest.fixture(scope="module")
def for_sdxl(tmp_path_factory):
    """Two kohya files with keys for the UNet and both text encoders."""
    folder = tmp_path_factory.mktemp("sdxl")
    found = []
    for seed in (1, 2):
        (folder / str(seed)).mkdir()
        found.append(kohya_file("sdxl", folder / str(seed), torch.bfloat16, seed).path)
    return found


@pytest.mark.parametrize("target", ["unet", ["text_encoder_2"], ("text_encoder", "unet")], ids=str)
def test_only_what_target_names(for_sdxl, sha256, target):
    pipeline = tiny_pipeline("sdxl")
    report = lora_mmap.load_and_fuse_lora(pipeline, for_sdxl[0], "style", lora_scale=0.5, target=target)
    names = [target] if isinstance(target, str) else list(target)
    assert sorted(report) == sorted(names)
    assert_bytes(parts_of("sdxl", pipeline), composed_parts("sdxl", [(for_sdxl[0], 0.5)], only=names), sha256)
    assert lora_mmap.get_active_adapters(pipeline) == ["style"]
    lora_mmap.set_and_fuse_adapters(pipeline, "style", 0.25)  # still only there
    assert_bytes(parts_of("sdxl", pipeline), composed_parts("sdxl", [(for_sdxl[0], 0.25)], only=names), sha256)
    assert lora_mmap.unfuse_lora(pipeline)
    assert_bytes(parts_of("sdxl", pipeline), composed_parts("sdxl", []), sha256)


def test_the_default_is_everything_that_diffusers_would_load_into(for_sdxl, sha256):
    pipeline = tiny_pipeline("sdxl")
    lora_mmap.load_and_fuse_lora(pipeline, for_sdxl[0])
    named = tiny_pipeline("sdxl")
    lora_mmap.load_and_fuse_lora(named, for_sdxl[0], target=["unet", "text_encoder", "text_encoder_2"])
    assert_bytes(parts_of("sdxl", pipeline), parts_of("sdxl", named), sha256)
    assert_bytes(parts_of("sdxl", pipeline), composed_parts("sdxl", [(for_sdxl[0], 1.0)]), sha256)


@pytest.mark.parametrize("target", ["vae", ["unet", "text_encoder_9"], ["scheduler"]], ids=str)
def test_targets_that_the_pipeline_lacks(for_sdxl, sha256, target):
    pipeline = tiny_pipeline("sdxl")
    with pytest.raises(ArgumentError, match="target"):
        lora_mmap.load_and_fuse_lora(pipeline, for_sdxl[0], target=target)
    assert_bytes(parts_of("sdxl", pipeline), composed_parts("sdxl", []), sha256)
    assert lora_mmap.get_active_adapters(pipeline) == []


@pytest.mark.parametrize("way", ["target", "list", "diffusers"])
def test_second_experts_only_where_they_are_named(tmp_path, sha256, way):
    kind = "wan_two_experts"
    path = saved_by_diffusers(kind, tmp_path).path
    pipeline = tiny_pipeline(kind)
    how = {
        "target": {"target": "transformer_2"},
        "list": {"target": ["transformer", "transformer_2"]},
        "diffusers": {"load_into_transformer_2": True},
    }[way]
    report = lora_mmap.load_and_fuse_lora(pipeline, path, "low", lora_scale=0.5, **how)
    names = ["transformer", "transformer_2"] if way == "list" else ["transformer_2"]
    assert list(report) == names
    expected = parts_of(kind, tiny_pipeline(kind))
    for name in names:
        lora_mmap.compose(expected[name], [(path, 0.5)], component="denoiser")
    assert_bytes(parts_of(kind, pipeline), expected, sha256)


def test_each_expert_has_scales_of_its_own(tmp_path, sha256):
    """As Wan 2.2's pairs of files are used: one name an expert, switched together."""
    kind = "wan_two_experts"
    high, low = (saved_by_diffusers(kind, tmp_path / name, seed=seed).path for seed, name in enumerate(("h", "l")))
    pipeline = tiny_pipeline(kind)
    lora_mmap.load_and_fuse_lora(pipeline, high, "high")
    lora_mmap.load_and_fuse_lora(pipeline, low, "low", target="transformer_2")
    lora_mmap.set_and_fuse_adapters(pipeline, ["high", "low"], [0.75, 0.5])
    expected = parts_of(kind, tiny_pipeline(kind))
    lora_mmap.compose(expected["transformer"], [(high, 0.75)])
    lora_mmap.compose(expected["transformer_2"], [(low, 0.5)])
    assert_bytes(parts_of(kind, pipeline), expected, sha256)
    assert lora_mmap.get_active_adapters(pipeline) == ["high", "low"]


def test_a_dict_of_modules(files, pipeline, sha256):
    modules = parts_of("sd15", pipeline)
    lora_mmap.load_and_fuse_lora({**modules, "vae": None}, files["a"], "a", lora_scale={"unet": 0.5})
    lora_mmap.load_and_fuse_lora(modules, files["b"], "b", target="unet")
    expected = composed_parts("sd15", [(files["a"], {"unet": 0.5})])
    lora_mmap.compose(expected["unet"], [(files["a"], 0.5), (files["b"], 1.0)])
    assert_bytes(modules, expected, sha256)
    assert lora_mmap.get_active_adapters(modules) == ["a", "b"]
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "b"]  # adapters are their modules'
    assert lora_mmap.unfuse_lora(modules)
    assert_bytes(modules, composed_parts("sd15", []), sha256)


def test_any_object_with_components(files, pipeline, sha256):
    bag = types.SimpleNamespace(**parts_of("sd15", pipeline), scheduler=None)
    lora_mmap.load_and_fuse_lora(bag, files["a"], lora_scale=0.5)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 0.5)]), sha256)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_one_module(files, pipeline, sha256, component):
    """The keys of the other component are no business of it."""
    module = getattr(pipeline, component)
    report = lora_mmap.load_and_fuse_lora(module, files["a"], "a", lora_scale=0.5)
    assert report.applied > 0
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 0.5)], only=[component]), sha256)
    lora_mmap.set_and_fuse_adapters(module, "a", -0.25)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], -0.25)], only=[component]), sha256)
    assert lora_mmap.get_active_adapters(module) == ["a"]
    lora_mmap.delete_adapters(module)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", []), sha256)


@pytest.mark.parametrize(
    "nothing",
    [object(), {}, {"unet": None}, {"unet": "a name"}, 3],
    ids=["an object", "an empty dict", "a dict of None", "a dict of names", "a number"],
)
def test_what_is_no_pipeline(files, nothing):
    with pytest.raises(ArgumentError, match="pipeline"):
        lora_mmap.load_and_fuse_lora(nothing, files["a"])


def test_pipelines_that_share_a_component(files, pipeline, sha256):
    """What is shared is in both; what is not, in one."""
    other = assembled("sd15", {**parts_of("sd15", tiny_pipeline("sd15")), "unet": pipeline.unet})
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    assert lora_mmap.get_active_adapters(other) == ["a"]
    with pytest.warns(LoraWarning, match="'a'"):
        assert not lora_mmap.load_and_fuse_lora(other, files["b"], "a")
    lora_mmap.load_and_fuse_lora(other, files["b"], "b", lora_scale=0.25)
    both = [(files["a"], 0.5), (files["b"], 0.25)]
    assert sha256(pipeline.unet) == sha256(composed_parts("sd15", both)["unet"])
    assert sha256(pipeline.text_encoder) == sha256(composed_parts("sd15", both[:1])["text_encoder"])
    assert sha256(other.text_encoder) == sha256(composed_parts("sd15", both[1:])["text_encoder"])
    assert lora_mmap.get_active_adapters(pipeline) == ["a", "b"]

    lora_mmap.unfuse_lora(other)
    assert_bytes(parts_of("sd15", other), composed_parts("sd15", []), sha256)
    assert lora_mmap.get_active_adapters(other) == []
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]  # in its own text encoder
    lora_mmap.set_and_fuse_adapters(pipeline, "a", 0.75)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 0.75)]), sha256)
    lora_mmap.delete_adapters(pipeline)
    assert lora_mmap.get_active_adapters(other) == []
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", []), sha256)


def test_folders_and_dicts_mean_what_the_file_means(tmp_path, sha256):
    written = saved_by_diffusers("flux", tmp_path / "repository" / "lora", torch.bfloat16, metadata=False)
    tensors = load_file(written.path)
    named = {"weight_name": written.path.name}
    sources = [
        (written.path, {}),
        (str(written.path), {}),
        (written.path.parent, {}),
        (written.path.parent, named),
        (str(tmp_path / "repository"), {"subfolder": "lora"}),
        (tmp_path / "repository", {"subfolder": "lora", **named, "local_files_only": True}),
        (tensors, {}),
    ]
    expected = composed_parts("flux", [(written.path, 0.5)])
    for source, options in sources:
        pipeline = tiny_pipeline("flux")
        lora_mmap.load_and_fuse_lora(pipeline, source, lora_scale=0.5, strict=True, **options)
        assert_bytes(parts_of("flux", pipeline), expected, sha256)
    assert sorted(tensors) == sorted(load_file(written.path)), "the caller's dict is the caller's"


def test_a_dict_that_changes_later(files, pipeline, sha256):
    tensors = load_file(files["a"])
    lora_mmap.load_and_fuse_lora(pipeline, tensors, "a")
    for tensor in tensors.values():
        tensor.fill_(7.0)
    tensors.clear()
    lora_mmap.set_and_fuse_adapters(pipeline, "a", 0.5)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 0.5)]), sha256)


def test_arguments_of_diffusers_are_taken_and_others_are_not(files, pipeline, sha256):
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", low_cpu_mem_usage=True, use_safetensors=True, proxies=None)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 1.0)]), sha256)
    with pytest.raises(ArgumentError, match="lora_sacle"):
        lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b", lora_sacle=0.5)
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_components_without_keys_are_left_alone(kind, tmp_path):
    """An adapter of the denoiser alone finds its way, whatever text encoders there are."""
    written = saved_by_diffusers(kind, tmp_path)
    denoiser = KINDS[kind].denoiser
    tensors = {key: value for key, value in load_file(written.path).items() if key.startswith(denoiser)}
    report = lora_mmap.load_and_fuse_lora(tiny_pipeline(kind), tensors, strict=True)
    assert [name for name, of in report.items() if of] == [denoiser]
