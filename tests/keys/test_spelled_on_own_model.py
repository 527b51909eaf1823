"""Every dialect on the very model its modules come from: each key is applied, to its module and the whole of it."""

import pytest
from spelled import hollow_file, trainers
from spelled.published import DENOISERS, LANGUAGE_MODELS, TEXT_ENCODERS, matrices, published

import lora_mmap


def keys_of(tmp_path, model, tensors, **options):
    """The report's verdicts on a file of these tensors."""
    path = hollow_file.write(tmp_path / "adapter.safetensors", tensors)
    keys = lora_mmap.check(model, path, **options).to_dict()["keys"]
    assert keys.keys() == tensors.keys()
    return keys


def elsewhere(keys, meant):
    """The keys whose verdict is not "all of the module that was meant": {key: (module, verdict)}."""
    wrong = {}
    for key, module in meant.items():
        found = keys[key]
        targets = [(target["module"], target["rows"], target["cols"], target["layout"]) for target in found["targets"]]
        if found["outcome"] != "applied" or targets != [(module, None, None, None)]:
            wrong[key] = (module, found)
    return wrong


@pytest.mark.parametrize("dialect", trainers.DENOISER)
@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers(tmp_path, name, dialect):
    model = published(name)
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], matrices(model))
    assert elsewhere(keys_of(tmp_path, model, tensors), meant) == {}


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_attention_processors(tmp_path, name):
    model = published(name)
    tensors, meant = trainers.attention_processor(matrices(model))
    assert len(meant) > 100
    assert elsewhere(keys_of(tmp_path, model, tensors), meant) == {}


@pytest.mark.parametrize(
    ("name", "dialect"), [(name, dialect) for name in TEXT_ENCODERS for dialect in trainers.TEXT_ENCODER[name]]
)
def test_text_encoders(tmp_path, name, dialect):
    """Whether the model has the level ``text_model`` depends on transformers' version, whether the file says it, on the
    trainer's."""
    model = published(name)
    shapes = matrices(model)
    shapes.pop("text_projection", None)  # beside ``text_model``, not in it
    modules = {module.removeprefix("text_model."): module for module in shapes}
    spelling = trainers.TEXT_ENCODER[name][dialect]
    tensors, meant = trainers.spell(spelling, {bare: shapes[module] for bare, module in modules.items()})
    assert elsewhere(keys_of(tmp_path, model, tensors), {key: modules[bare] for key, bare in meant.items()}) == {}


@pytest.mark.parametrize("prefix", ["lora_te2_", "text_encoder_2."])
def test_the_text_projection_of_clip_g(tmp_path, prefix):
    model = published("clip_g")
    spelling = trainers.Spelling(prefix, prefix.endswith("_"), ".lora_down.weight", ".lora_up.weight", ".alpha")
    tensors, meant = trainers.spell(spelling, {"text_projection": (1280, 1280)})
    assert elsewhere(keys_of(tmp_path, model, tensors), meant) == {}


@pytest.mark.parametrize("dialect", trainers.LANGUAGE_MODEL)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models(tmp_path, name, dialect):
    """PEFT's own files: the path begins with the model's own level ``model``."""
    model = published(name)
    tensors, meant = trainers.spell(trainers.LANGUAGE_MODEL[dialect], matrices(model))
    assert elsewhere(keys_of(tmp_path, model, tensors), meant) == {}


def test_one_file_for_the_unet_and_both_text_encoders(tmp_path):
    """SDXL by kohya: on each of the three models its own part is applied and the rest absent."""
    parts = {
        "sdxl": trainers.DENOISER["kohya"],
        "clip_l": trainers.TEXT_ENCODER["clip_l"]["kohya_transformers_5"],
        "clip_g": trainers.TEXT_ENCODER["clip_g"]["kohya_transformers_5"],
    }
    tensors, meant = {}, {}
    for name, spelling in parts.items():
        own, meant[name] = trainers.spell(spelling, matrices(published(name)))
        tensors.update(own)
    for name in parts:
        keys = keys_of(tmp_path, published(name), tensors)
        assert elsewhere(keys, meant[name]) == {}
        others = {keys[key]["outcome"] for other in parts if other != name for key in meant[other]}
        assert others == {"absent"}
