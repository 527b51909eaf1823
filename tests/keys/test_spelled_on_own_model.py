"""Every dialect on the very model its modules come from: each key is applied, to its module and the whole of it."""

import pytest
from spelled import trainers
from spelled.published import (
    DENOISERS,
    LANGUAGE_MODELS,
    OTHER_CLASSES,
    TEXT_ENCODERS,
    matrices,
    other,
    published,
)
from spelled.verdicts import Target, require_applied, verdicts


def whole(meant):
    """{key: all of its module}."""
    return {key: {Target(module)} for key, module in meant.items()}


@pytest.mark.parametrize("dialect", trainers.DENOISER)
@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers(tmp_path, name, dialect):
    model = published(name)
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], matrices(model))
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


@pytest.mark.parametrize("dialect", ["kohya", "peft", "diffusers_transformer", "comfyui"])
@pytest.mark.parametrize("name", OTHER_CLASSES)
def test_other_denoisers(tmp_path, name, dialect):
    """A model's own names need no table, and no table that knows equal names stands in their way."""
    model = other(name)
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], matrices(model))
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_attention_processors(tmp_path, name):
    model = published(name)
    tensors, meant = trainers.attention_processor(matrices(model))
    assert len(meant) > 100
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


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
    meant = {key: modules[bare] for key, bare in meant.items()}
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


@pytest.mark.parametrize("prefix", ["lora_te2_", "text_encoder_2."])
def test_the_text_projection_of_clip_g(tmp_path, prefix):
    model = published("clip_g")
    spelling = trainers.Spelling(prefix, prefix.endswith("_"), ".lora_down.weight", ".lora_up.weight", ".alpha")
    tensors, meant = trainers.spell(spelling, {"text_projection": (1280, 1280)})
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


@pytest.mark.parametrize("dialect", trainers.LANGUAGE_MODEL)
@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models(tmp_path, name, dialect):
    """PEFT's own files: the path begins with the model's own level ``model``."""
    model = published(name)
    tensors, meant = trainers.spell(trainers.LANGUAGE_MODEL[dialect], matrices(model))
    require_applied(verdicts(tmp_path, model, tensors), whole(meant))


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
        keys = verdicts(tmp_path, published(name), tensors)
        require_applied(keys, whole(meant[name]))
        others = {keys[key]["outcome"] for other in parts if other != name for key in meant[other]}
        assert others == {"absent"}
