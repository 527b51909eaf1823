"""Where independent loaders agree on a key's place, we name the same weight, rows and modules."""

import corpus
import pytest
from spelled import hollow_file

import lora_mmap


@pytest.fixture
def verdicts(tmp_path):
    def check(listed, model):
        path = hollow_file.write(tmp_path / "adapter.safetensors", corpus.tensors_of(listed))
        return lora_mmap.check(model, path).to_dict()["keys"]

    return check


def differing(expected, found):
    """The first keys on which we and the peers name different places."""
    wrong = {key: (where, found[key]) for key, where in expected.items() if found[key] != where}
    return len(wrong), dict(list(wrong.items())[:6])


@pytest.mark.parametrize("name", corpus.names_in("consensus"))
def test_weights_and_rows_of_the_native_model(verdicts, name):
    listed = corpus.load("lists", name)
    model = corpus.model(corpus.models_of(listed)[0])
    agreed = {key: entry["native"] for key, entry in corpus.load("consensus", name).items() if entry.get("native")}
    expected = {
        key: {(weight.removesuffix(".weight"), first, first + rows) for weight, first, rows in places}
        for key, places in agreed.items()
    }
    keys = verdicts(listed, model)
    found = {
        key: {
            (to["module"], *(to["rows"] or (0, model.get_submodule(to["module"]).weight.shape[0])))
            for to in keys[key]["targets"]
        }
        for key in expected
    }
    assert expected
    assert differing(expected, found) == (0, {})


@pytest.mark.parametrize("name", corpus.names_in("consensus"))
def test_modules_of_the_diffusers_model(verdicts, name):
    listed = corpus.load("lists", name)
    model = corpus.model(corpus.models_of(listed)[1])
    agreed = {key: entry.get("diffusers") for key, entry in corpus.load("consensus", name).items()}
    expected = {
        key: {module.removeprefix("transformer.").removeprefix("unet.") for module, _ in places}
        for key, places in agreed.items()
        if places
    }
    if not expected:
        pytest.skip("the peers do not agree on any module of diffusers'")
    keys = verdicts(listed, model)
    found = {key: {to["module"] for to in keys[key]["targets"]} for key in expected}
    assert differing(expected, found) == (0, {})
