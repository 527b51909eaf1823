"""After an error every component has the bytes it had, what was active still is, and the name is free."""

import pytest
import torch
from composed_directly import assert_bytes, composed_parts
from safetensors.torch import load_file, save_file
from tiny_pipelines import parts_of, tiny_pipeline

import lora_mmap
from lora_mmap.errors import (
    AdapterError,
    ArgumentError,
    FusionOverflowError,
    HeaderError,
    LoraMmapError,
    ModelError,
    UnmatchedKeysError,
)

HALF = torch.float16


@pytest.fixture(params=["pristine", "composed"])
def fused(request, files, sha256):
    """(pipeline in float16, what is in it); afterwards nothing has changed, and it can be used."""
    pipeline = tiny_pipeline("sd15", HALF)
    adapters = []
    if request.param == "composed":
        adapters = [(files["a"], 0.5), (files["d"], 0.25)]
        for (path, scale), name in zip(adapters, "ad", strict=True):
            lora_mmap.load_and_fuse_lora(pipeline, path, name, lora_scale=scale)
    names = lora_mmap.get_active_adapters(pipeline)
    yield pipeline, adapters
    parts = parts_of("sd15", pipeline)
    assert_bytes(parts, composed_parts("sd15", adapters, HALF), sha256)
    assert lora_mmap.get_active_adapters(pipeline) == names
    assert lora_mmap.load_and_fuse_lora(pipeline, files["b"], "wrong", lora_scale=0.75)  # the name is free
    assert_bytes(parts, composed_parts("sd15", [*adapters, (files["b"], 0.75)], HALF), sha256)
    assert lora_mmap.unfuse_lora(pipeline)
    assert_bytes(parts, composed_parts("sd15", [], HALF), sha256)


def altered(path, folder, start, change):
    """The file with one tensor of those that begin so changed."""
    tensors = load_file(path)
    key = next(key for key in tensors if key.startswith(start) and key.endswith("lora_up.weight"))
    tensors |= change(key, tensors[key])
    changed = folder / "wrong.safetensors"
    save_file(tensors, changed)
    return changed


@pytest.mark.parametrize("component", ["unet", "te"])
def test_overflow_in_a_component(fused, files, tmp_path, component):
    """Text encoders come after the denoiser: it was written already, and is taken back."""
    pipeline, _ = fused
    wrong = altered(files["b"], tmp_path, f"lora_{component}_", lambda key, up: {key: torch.full_like(up, 3e38)})
    with pytest.raises(FusionOverflowError, match=r"weight|module|layer"):
        lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong")


@pytest.mark.parametrize("component", ["unet", "te"])
def test_a_pair_that_does_not_fit(fused, files, tmp_path, component):
    pipeline, _ = fused
    wrong = altered(files["b"], tmp_path, f"lora_{component}_", lambda key, up: {key: torch.cat([up, up])})
    with pytest.raises(AdapterError):
        lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong")


def test_a_key_that_nobody_knows(fused, files, tmp_path):
    pipeline, _ = fused
    stem = "lora_te_nothing_of_ours"
    more = {f"{stem}.lora_down.weight": torch.ones(2, 12), f"{stem}.lora_up.weight": torch.ones(12, 2)}
    wrong = altered(files["b"], tmp_path, "lora_te_", lambda key, up: more)
    with pytest.raises(UnmatchedKeysError, match="nothing_of_ours"):
        lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong", strict=True)


@pytest.mark.parametrize("where", ["header", "end"])
def test_damaged_files(fused, files, tmp_path, where):
    pipeline, _ = fused
    content = files["b"].read_bytes()
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(content[:100] if where == "header" else content[:-1])
    with pytest.raises(HeaderError):
        lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong")


@pytest.mark.parametrize("use_cache", [True, False])
def test_files_that_are_not_there(fused, tmp_path, use_cache):
    pipeline, _ = fused
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lora_mmap.load_and_fuse_lora(pipeline, tmp_path / "nowhere.safetensors", "wrong", use_cache=use_cache)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lora_scale": float("nan")},
        {"lora_scale": {"unet": float("inf")}},
        {"lora_scale": {"vae": 1.0}},
        {"lora_scale": [1.0]},
        {"lora_scale": "strong"},
        {"target": "vae"},
        {"offload_device": "nowhere"},
        {"waight_name": "x"},
    ],
    ids=str,
)
def test_impossible_arguments(fused, files, arguments):
    pipeline, _ = fused
    with pytest.raises(ArgumentError):
        lora_mmap.load_and_fuse_lora(pipeline, files["b"], "wrong", **arguments)


def test_weights_that_lead_to_an_overflow(fused, files):
    """In a switch: what was active before is active again."""
    pipeline, adapters = fused
    lora_mmap.load_lora_and_optionally_fuse(pipeline, files["c"], "c", fuse=False)
    names = [name for name, _ in zip("ad", adapters, strict=False)]
    with pytest.raises(FusionOverflowError):
        lora_mmap.set_and_fuse_adapters(
            pipeline, ["c", *names], [{"unet": 0.5, "text_encoder": 1e9}, *(1.0 for _ in names)]
        )
    lora_mmap.delete_adapters(pipeline, "c")


@pytest.mark.parametrize(
    "call",
    [
        lambda pipeline, files: lora_mmap.unfuse_lora(pipeline),
        lambda pipeline, files: lora_mmap.delete_adapters(pipeline, "a"),
        lambda pipeline, files: lora_mmap.set_and_fuse_adapters(pipeline, "a", 0.125),
        lambda pipeline, files: lora_mmap.load_and_fuse_lora(pipeline, files["b"], "b"),
    ],
    ids=["unfuse", "delete", "set", "load"],
)
def test_a_weight_that_somebody_else_wrote_to(pipeline, files, sha256, call):
    """Found in the text encoder, after the UNet was done."""
    lora_mmap.load_and_fuse_lora(pipeline, files["a"], "a", lora_scale=0.5)
    weight = pipeline.text_encoder.get_parameter("encoder.layers.1.mlp.fc2.weight")
    kept = weight[0, 0].clone()
    with torch.no_grad():
        weight[0, 0] += 1.0
    before = {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()}
    with pytest.raises(ModelError, match="fc2"):
        call(pipeline, files)
    assert {name: sha256(part) for name, part in parts_of("sd15", pipeline).items()} == before
    assert lora_mmap.get_active_adapters(pipeline) == ["a"]
    with torch.no_grad():
        weight[0, 0] = kept
    call(pipeline, files)
    lora_mmap.unfuse_lora(pipeline)
    assert_bytes(parts_of("sd15", pipeline), composed_parts("sd15", []), sha256)


def test_an_adapter_of_another_model_is_not_loaded(fused, tmp_path):
    """Nothing of it has a place: that is no error unless asked for, and the name stays free."""
    pipeline, _ = fused
    wrong = tmp_path / "wrong.safetensors"
    save_file(
        {
            "transformer.blocks.0.to_q.lora_A.weight": torch.ones(2, 8),
            "transformer.blocks.0.to_q.lora_B.weight": torch.ones(8, 2),
        },
        wrong,
    )
    assert not lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong")
    with pytest.raises(LoraMmapError):
        lora_mmap.load_and_fuse_lora(pipeline, wrong, "wrong", strict=True)
