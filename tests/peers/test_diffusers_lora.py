"""Tiny models of diffusers, adapters added and saved by diffusers itself, fused by us."""

import copy

import pytest
import torch
from numerics_bound import assert_one_rounding, reference, relative_error
from tiny_diffusers import ALPHA, ATTENTION, R, adapted, diffusers, flux, peft, qwen, sd3, unet

import lora_mmap

# Peers about each other, as of diffusers 0.42 with peft 0.21.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers", "ignore::FutureWarning:peft")


ADDED = ["add_q_proj", "add_k_proj", "add_v_proj"]
MODELS = {
    "unet": (unet, [*ATTENTION, "conv1", "conv_shortcut", "proj_in"], "StableDiffusionPipeline", "unet"),
    "flux": (flux, [*ATTENTION, *ADDED, "proj_mlp"], "FluxPipeline", "transformer"),
    "sd3": (sd3, [*ATTENTION, *ADDED], "StableDiffusion3Pipeline", "transformer"),
    "qwen": (qwen, [*ATTENTION, *ADDED, "net.0.proj"], "QwenImagePipeline", "transformer"),
}


def trained_on(base, targets):
    """An adapted copy of ``base``."""
    torch.manual_seed(3)
    return adapted(copy.deepcopy(base), targets)


def terms_of(model, scale):
    """{module: (down, up, scale)} of a model with a PEFT adapter."""
    return {
        name: (module.lora_A["default"].weight, module.lora_B["default"].weight, scale)
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def save_through_pipeline(case, model, folder, with_metadata):
    """diffusers' save_lora_weights, a class method of the pipeline."""
    _, _, pipeline, component = MODELS[case]
    layers = peft.get_peft_model_state_dict(model)
    metadata = {}
    if with_metadata:
        metadata[f"{component}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
    getattr(diffusers, pipeline).save_lora_weights(folder, **{f"{component}_lora_layers": layers}, **metadata)


@pytest.fixture(params=MODELS)
def case(request):
    return request.param


@pytest.fixture
def base(case):
    torch.manual_seed(2)
    return MODELS[case][0]().eval()


def assert_composed(model, pristine, terms):
    touched = 0
    for name, weight in model.named_parameters():
        original = pristine.get_parameter(name)
        term = terms.get(name.removesuffix(".weight"))
        if term is None or not name.endswith(".weight"):
            assert torch.equal(weight, original), name
            continue
        touched += 1
        assert not torch.equal(weight, original), name
        assert_one_rounding(weight, original, [term], name)
    assert touched == len(terms) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_metadata", [True, False], ids=["metadata", "bare"])
def test_save_lora_weights(case, base, dtype, with_metadata, tmp_path, sha256):
    trained = trained_on(base, MODELS[case][1])
    save_through_pipeline(case, trained, tmp_path, with_metadata)
    pristine = copy.deepcopy(base).to(dtype)
    model = copy.deepcopy(pristine)
    before = sha256(model)

    report = lora_mmap.compose(model, [(tmp_path, 0.75)], strict=True)

    # Without its metadata the file does not tell alpha: alpha = rank is what diffusers takes too.
    alpha_over_rank = ALPHA / R if with_metadata else 1.0
    assert_composed(model, pristine, terms_of(trained, 0.75 * alpha_over_rank))
    (told,) = report.to_dict()["adapters"][0]["scales"]
    assert told["scale"] == pytest.approx(alpha_over_rank)
    assert ("lora_adapter_metadata" in told["alpha"]) is with_metadata
    assert ("assumed" in told["alpha"]) is not with_metadata
    assert lora_mmap.reset(model)
    assert sha256(model) == before


def test_save_lora_adapter_of_a_bare_model(case, base, tmp_path, sha256):
    trained = trained_on(base, MODELS[case][1])
    trained.save_lora_adapter(tmp_path)
    model = copy.deepcopy(base)
    before = sha256(model)
    lora_mmap.compose(model, [(tmp_path / "pytorch_lora_weights.safetensors", -1.0)], strict=True)
    assert_composed(model, base, terms_of(trained, -ALPHA / R))
    lora_mmap.reset(model)
    assert sha256(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_at_least_as_close_as_fuse_lora(case, base, dtype, tmp_path):
    """Over the whole model, as one vector; in fp32 both are one rounding from the truth."""
    trained = trained_on(base, MODELS[case][1])
    trained.save_lora_adapter(tmp_path)
    pristine = copy.deepcopy(base).to(dtype)
    ours, theirs = copy.deepcopy(pristine), copy.deepcopy(pristine)
    lora_mmap.compose(ours, [(tmp_path, 1.0)])
    theirs.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    theirs.fuse_lora()
    theirs.unload_lora()
    terms = terms_of(trained, ALPHA / R)

    def stacked(model):
        return torch.cat([model.get_submodule(name).weight.detach().double().flatten() for name in terms])

    truth = torch.cat([reference(pristine.get_submodule(n).weight, [t])[0].flatten() for n, t in terms.items()])
    our_error, their_error = (stacked(ours) - truth).norm(), (stacked(theirs) - truth).norm()
    assert our_error <= their_error * (1.01 if dtype is torch.float32 else 1.0)
    assert our_error <= 2.0 ** (-24 if dtype is torch.float32 else -8) * 1.1 * truth.norm()


@pytest.mark.parametrize("with_metadata", [True, False], ids=["metadata", "bare"])
def test_fused_projections_of_qwen_image(with_metadata, tmp_path, sha256):
    """q, k and v land in the rows of to_qkv; the split layers, dead by then, are left alone."""
    torch.manual_seed(2)
    base = qwen().eval()
    trained = trained_on(base, [*ATTENTION, *ADDED])
    save_through_pipeline("qwen", trained, tmp_path, with_metadata)
    for block in base.transformer_blocks:
        block.attn.fuse_projections()
    model = copy.deepcopy(base)
    before = sha256(model)

    report = lora_mmap.compose(model, [(tmp_path, 1.0)], strict=True)

    terms = terms_of(trained, ALPHA / R if with_metadata else 1.0)
    for index in range(2):
        attention = f"transformer_blocks.{index}.attn."
        fused = {"to_qkv": ["to_q", "to_k", "to_v"], "to_added_qkv": ADDED}
        for whole, parts in fused.items():
            weight, pristine = (
                model.get_submodule(attention + whole).weight,
                base.get_submodule(attention + whole).weight,
            )
            for part, new, old in zip(parts, weight.chunk(3), pristine.chunk(3), strict=True):
                assert not torch.equal(new, old)
                assert_one_rounding(new, old, [terms[attention + part]], attention + part)
                split = model.get_submodule(attention + part).weight
                assert torch.equal(split, base.get_submodule(attention + part).weight), part
    keys = report.to_dict()["keys"]
    (target,) = next(entry["targets"] for key, entry in keys.items() if ".0.attn.to_k." in key)
    assert target["module"].endswith("to_qkv")
    assert target["rows"] == [32, 64]
    lora_mmap.reset(model)
    assert sha256(model) == before


def test_rows_of_a_fused_projection_that_only_the_first_adapter_covered(tmp_path):
    """Replacing an adapter on q by one on k leaves nothing of the first behind in the shared weight."""
    torch.manual_seed(2)
    base = qwen().eval()
    for folder, part in (("q", "to_q"), ("k", "to_k")):
        save_through_pipeline("qwen", trained_on(base, [part]), tmp_path / folder, True)
    for block in base.transformer_blocks:
        block.attn.fuse_projections()
    once, twice = copy.deepcopy(base), copy.deepcopy(base)
    lora_mmap.compose(once, [(tmp_path / "k", 1.0)])
    lora_mmap.compose(twice, [(tmp_path / "q", 1.0)])
    lora_mmap.compose(twice, [(tmp_path / "k", 1.0)])
    for name, weight in twice.named_parameters():
        assert torch.equal(weight, once.get_parameter(name)), name


def test_the_fused_model_computes_what_the_adapted_one_does(tmp_path):
    """End to end: the output with our weights is that of PEFT's unfused forward pass."""
    torch.manual_seed(2)
    base = unet().eval()
    trained = trained_on(base, MODELS["unet"][1]).eval()
    save_through_pipeline("unet", trained, tmp_path, True)
    model = copy.deepcopy(base)
    lora_mmap.compose(model, [(tmp_path, 1.0)])
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": 3, "encoder_hidden_states": torch.randn(1, 5, 12)}
    with torch.no_grad():
        assert not torch.allclose(base(**inputs).sample, trained(**inputs).sample, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model(**inputs).sample, trained(**inputs).sample, rtol=1e-3, atol=1e-4)
    assert relative_error(model.conv_in.weight, base.conv_in.weight, []) == 0
