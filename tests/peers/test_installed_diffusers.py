"""diffusers' own loading code, unchanged, with and without install()."""

import pytest
import torch
from routed_loading import assert_same_tensors, load_both_ways
from safetensors.torch import save_file
from tiny_diffusers import adapted, diffusers, flux, peft, unet

transformers = pytest.importorskip("transformers")

# Peers about each other, as of diffusers 0.42 with peft 0.21.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers", "ignore::FutureWarning:peft")


MODELS = {"unet": unet, "flux": flux}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(5)
    return MODELS[request.param]().eval()


def adapter_of(model):
    return {name: value for name, value in model.state_dict().items() if "lora" in name}


@pytest.mark.parametrize("options", [{}, {"torch_dtype": torch.bfloat16}, {"low_cpu_mem_usage": False}], ids=str)
@pytest.mark.parametrize("backend", ["auto", "pread"])
def test_from_pretrained(model, options, backend, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_MMAP_BACKEND", backend)
    model.save_pretrained(tmp_path)
    theirs, ours = load_both_ways(lambda: type(model).from_pretrained(tmp_path, **options).state_dict())
    assert_same_tensors(ours, theirs)
    if "torch_dtype" not in options:
        assert_same_tensors(ours, model.state_dict())


def test_from_pretrained_in_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = len(list(tmp_path.glob("*.safetensors")))
    assert shards > 2
    theirs, ours = load_both_ways(lambda: type(model).from_pretrained(tmp_path).state_dict(), files=shards)
    assert_same_tensors(ours, theirs)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # diffusers'
def test_from_pretrained_without_mapping(model, tmp_path):
    """Reads the file itself and calls safetensors.torch.load."""
    model.save_pretrained(tmp_path)
    theirs, ours = load_both_ways(lambda: type(model).from_pretrained(tmp_path, disable_mmap=True).state_dict())
    assert_same_tensors(ours, theirs)


def test_load_lora_adapter_of_a_model(model, tmp_path):
    adapted(model).save_lora_adapter(tmp_path)
    fresh = MODELS["unet" if hasattr(model, "conv_in") else "flux"]

    def load():
        torch.manual_seed(5)
        bare = fresh()
        bare.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
        return adapter_of(bare)

    theirs, ours = load_both_ways(load)
    assert_same_tensors(ours, theirs)
    assert_same_tensors(
        {name.replace("default_0", "default"): value for name, value in ours.items()}, adapter_of(model)
    )


@pytest.fixture
def pipeline():
    """A whole Stable Diffusion pipeline of a few kilobytes."""
    torch.manual_seed(6)
    text = transformers.CLIPTextConfig(
        vocab_size=100,
        hidden_size=12,
        intermediate_size=24,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "cat</w>": 3}
    return diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(vocab=words, merges=[], model_max_length=16),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tensors_of(pipeline):
    return {
        f"{part}.{name}": value
        for part in ("vae", "text_encoder", "unet")
        for name, value in getattr(pipeline, part).state_dict().items()
    }


def test_a_whole_pipeline_and_load_lora_weights(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "pipeline")
    trained = adapted(unet())
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora",
        unet_lora_layers=peft.get_peft_model_state_dict(trained),
        unet_lora_adapter_metadata=trained.peft_config["default"].to_dict(),
    )

    def load():
        loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
        bare = tensors_of(loaded)
        loaded.load_lora_weights(tmp_path / "lora")
        return bare, tensors_of(loaded)

    theirs, ours = load_both_ways(load, files=4)
    assert_same_tensors(ours[0], theirs[0])
    assert_same_tensors(ours[0], tensors_of(pipeline))
    assert_same_tensors(ours[1], theirs[1])
    assert len(adapter_of(trained)) == len([name for name in ours[1] if "lora" in name]) > 0


def test_single_file_checkpoint(tmp_path):
    """load_single_file_checkpoint is what from_single_file reads with."""
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    path = tmp_path / "model.safetensors"
    save_file(unet().state_dict(), path)
    theirs, ours = load_both_ways(lambda: load_single_file_checkpoint(path))
    assert_same_tensors(ours, theirs)
