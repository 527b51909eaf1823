"""Every key of every real list ends in an outcome that we can name, with a model and without one."""

import re

import corpus
import pytest
from spelled import hollow_file

import lora_mmap

OUTCOMES = {"applied", "absent", "unsupported", "ignored"}
TEXT_ENCODERS = ("lora_te",)

# Keys of a list that its own model has no place for, and why that is right.
ABSENT = {
    # LyCORIS trains what the class has; Flux.1's layer norms have neither weight nor bias.
    "gen_lycoris_flux_dev_lora": r"_norm\d?(_context)?(_norm)?\.[wb]_norm$",
    # The distilled checkpoint has no guidance; diffusers' class has its embedder all the same.
    "gen_peft_flux2_klein4b": r"\.guidance_embedder\.",
    # PEFT trains a bias beside B also where the module has none, and cannot merge it.
    "gen_peft_z_image_lora_bias": r"\.lora_B\.bias$",
}


@pytest.fixture
def adapter_file(tmp_path):
    def write(listed):
        return hollow_file.write(tmp_path / f"{listed['name']}.safetensors", corpus.tensors_of(listed))

    return write


def grouped(keys, outcomes):
    """A few keys of each unexpected outcome, for the message."""
    found = {}
    for key, verdict in keys.items():
        if verdict["outcome"] in outcomes:
            found.setdefault((verdict["outcome"], verdict["reason"][:90]), []).append(key)
    return {reason: (len(names), names[:4]) for reason, names in found.items()}


@pytest.mark.parametrize("name", corpus.names_in("lists"))
def test_without_a_model(adapter_file, name):
    """Names alone say what a tensor is."""
    listed = corpus.load("lists", name)
    with lora_mmap.open_adapter(adapter_file(listed)) as adapter:
        keys = adapter.describe()["keys"]
    assert keys.keys() == listed["tensors"].keys()
    assert grouped(keys, {"unknown"}) == {}


@pytest.mark.parametrize("naming", ["native", "diffusers"])
@pytest.mark.parametrize("name", corpus.names_in("lists"))
def test_on_its_models(adapter_file, name, naming):
    listed = corpus.load("lists", name)
    model = corpus.models_of(listed)[naming == "diffusers"]
    if model is None or not corpus.has_shapes(listed):
        pytest.skip("no model of this family" if model is None else "the list has no shapes")
    keys = lora_mmap.check(corpus.model(model), adapter_file(listed)).to_dict()["keys"]
    assert keys.keys() == listed["tensors"].keys()
    assert {verdict["outcome"] for verdict in keys.values()} <= OUTCOMES, grouped(keys, {"unknown"})
    denoiser = {key: verdict for key, verdict in keys.items() if not key.startswith(TEXT_ENCODERS)}
    placeless = re.compile(ABSENT.get(name, "(?!)"))
    assert grouped({key: found for key, found in denoiser.items() if not placeless.search(key)}, {"absent"}) == {}
    assert {keys[key]["outcome"] for key in keys.keys() - denoiser.keys()} <= {"absent"}
