"""Components that others have changed before: PEFT's layers in them, compiled by torch, offloaded by accelerate."""

import copy

import pytest
import torch
import torch._dynamo.testing
from adapter_files import peers_at_peace
from component_forwards import forward
from composed_directly import assert_bytes, composed_parts
from kohya_files import kohya_file
from tiny_pipelines import parts_of, tiny_pipeline

import lora_mmap

peft = pytest.importorskip("peft")


def injected(pipeline):
    """Both components with an adapter of PEFT's beside their weights, switched off: its factors are not zero."""
    with peers_at_peace():
        for part, targets in ((pipeline.unet, ["to_q", "conv1"]), (pipeline.text_encoder, ["q_proj", "fc1"])):
            part.add_adapter(peft.LoraConfig(r=2, lora_alpha=3, target_modules=targets, init_lora_weights=False))
            part.disable_adapters()
    return pipeline


def base_weights(part):
    """{name: value}, PEFT's levels taken out and its factors left out."""
    return {name.replace(".base_layer", ""): value for name, value in part.state_dict().items() if ".lora_" not in name}


def test_layers_of_peft_are_fused_into_their_base_layer(pipeline, files, sha256):
    injected(pipeline)
    pristine = {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()}
    factors = {name: value.clone() for name, value in pipeline.unet.state_dict().items() if ".lora_" in name}
    adapters = [(files["a"], 0.5), (files["b"], 0.25)]
    for path, scale in adapters:
        assert lora_mmap.load_and_fuse_lora(pipeline, path, lora_scale=scale, strict=True)
    for name, expected in composed_parts("sd15", adapters).items():
        actual = base_weights(parts_of("sd15", pipeline)[name])
        assert actual.keys() == expected.state_dict().keys()
        assert all(torch.equal(actual[key], value) for key, value in expected.state_dict().items())
    state = pipeline.unet.state_dict()
    assert factors
    assert all(torch.equal(state[key], value) for key, value in factors.items())
    assert lora_mmap.unfuse_lora(pipeline)
    assert {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()} == pristine


def test_adapters_of_peft_still_add_up_with_ours(pipeline, files):
    """What is fused and what PEFT adds in the forward pass are both there."""
    expected = injected(tiny_pipeline("sd15"))
    injected(pipeline)
    for name, value in pipeline.unet.state_dict().items():
        if ".lora_" in name:
            expected.unet.state_dict()[name].copy_(value)
    for name, value in composed_parts("sd15", [(files["a"], 0.5)])["unet"].state_dict().items():
        path, _, own = name.rpartition(".")
        module = expected.unet.get_submodule(path)
        getattr(module, "base_layer", module).state_dict()[own].copy_(value)
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], lora_scale=0.5)
    off = forward(pipeline.unet)
    for part in (pipeline.unet, expected.unet):
        part.enable_adapters()
    assert not torch.allclose(forward(pipeline.unet), off, atol=1e-3)
    assert torch.equal(forward(pipeline.unet), forward(expected.unet))


def compiled_by_wrapping(part, counter):
    return torch.compile(part, backend=counter)


def compiled_in_place(part, counter):
    part.compile(backend=counter)
    return part


@pytest.mark.parametrize("compiled", [compiled_by_wrapping, compiled_in_place])
@pytest.mark.filterwarnings("ignore")
def test_compiled_components(tmp_path, sha256, compiled):
    """Loading, switching and taking out are seen by the compiled forward, and nothing is compiled again."""
    kind = "qwen_image"
    files = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        files.append(kohya_file(kind, tmp_path / str(seed), seed=seed).path)
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    pipeline = tiny_pipeline(kind)
    bare = pipeline.transformer
    pipeline.transformer = compiled(bare, counter)
    before, pristine = forward(pipeline.transformer), sha256(bare)
    compiled_once = counter.frame_count
    assert compiled_once > 0

    def assert_computes(adapters):
        expected = composed_parts(kind, adapters)["transformer"]
        assert sha256(bare) == sha256(expected)
        torch.testing.assert_close(forward(pipeline.transformer), forward(expected))
        assert counter.frame_count == compiled_once

    lora_mmap.load_and_fuse_lora(pipeline, files[0], "a", lora_scale=0.5)
    assert_computes([(files[0], 0.5)])
    assert not torch.allclose(forward(pipeline.transformer), before, atol=1e-3)
    lora_mmap.load_and_fuse_lora(pipeline, files[1], "b")
    assert_computes([(files[0], 0.5), (files[1], 1.0)])
    lora_mmap.set_and_fuse_adapters(pipeline, "b", -0.5)
    assert_computes([(files[1], -0.5)])
    assert lora_mmap.get_active_adapters(pipeline) == ["b"]
    assert lora_mmap.unfuse_lora(pipeline)
    assert torch.equal(forward(pipeline.transformer), before)
    assert sha256(bare) == pristine
    assert counter.frame_count == compiled_once
    torch._dynamo.reset()


def test_a_compiled_and_a_bare_handle_are_one_module(pipeline, files):
    wrapped = torch.compile(pipeline.unet, backend="eager")
    lora_mmap.load_and_fuse_lora(wrapped, files["a"], "a")
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    lora_mmap.delete_adapters({"unet": wrapped}, "a")
    assert lora_mmap.get_active_adapters(pipeline) == []


def test_weights_that_are_offloaded_one_by_one_are_refused(pipeline, files, sha256):
    """Sequential offload: they are on meta, and come for each forward only."""
    accelerate = pytest.importorskip("accelerate")
    accelerate.cpu_offload(pipeline.unet, execution_device="cpu")
    text_encoder = sha256(pipeline.text_encoder)
    with pytest.raises(lora_mmap.errors.ModelError, match="meta"):
        lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    assert sha256(pipeline.text_encoder) == text_encoder
    assert lora_mmap.get_active_adapters(pipeline) == []
    accelerate.hooks.remove_hook_from_module(pipeline.unet, recurse=True)
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 1.0)]), sha256)


def test_weights_that_are_offloaded_by_the_module(pipeline, files, sha256):
    """enable_model_cpu_offload: whole modules come and go, their weights are there."""
    accelerate = pytest.importorskip("accelerate")
    hooks = []
    for part in parts_of("sd15", pipeline).values():
        hooks.append(accelerate.cpu_offload_with_hook(part, execution_device="cpu")[1])
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", [(files["a"], 0.5)]), sha256)
    expected = forward(composed_parts("sd15", [(files["a"], 0.5)])["unet"])
    assert torch.equal(forward(pipeline.unet), expected)
    for hook in hooks:
        hook.offload()
    assert lora_mmap.unfuse_lora(pipeline)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", []), sha256)


def test_a_copy_of_a_fused_pipeline(pipeline, files, sha256):
    """It is another model, in which nobody has fused anything that we could take out again."""
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a")
    copied = copy.deepcopy(pipeline.unet)
    assert lora_mmap.get_active_adapters(copied) == []
    with pytest.raises(lora_mmap.errors.ModelError):
        lora_mmap.load_and_fuse_lora(copied, files["b"], "b")
    assert lora_mmap.get_active_adapters(copied) == []
    assert sha256(copied) == sha256(pipeline.unet)
