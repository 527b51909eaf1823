"""Where independent loaders agree on a key's place, we name the same weight, rows and modules."""

import corpus
import pytest
from spelled import hollow_file

import lora_mmap

# Keys that the peers place and we refuse: the peers widen the model for them.
REFUSED = {
    # BFL's control adapters feed 128 channels into img_in, which has 64 (FORMATS, section 7, case 28).
    "invoke_flux_control_lora": ["img_in.lora_B.weight"],
}


@pytest.fixture
def verdicts(tmp_path):
    def check(listed, model):
        path = hollow_file.write(tmp_path / "adapter.safetensors", corpus.tensors_of(listed))
        return lora_mmap.check(model, path).to_dict()["keys"]

    return check


def agreed_places(name, naming, keys):
    """What the peers agree on in one naming, less what we refuse: those keys have to say so."""
    refused = REFUSED.get(name, [])
    assert {keys[key]["outcome"] for key in refused} <= {"unsupported"}
    agreed = corpus.load("consensus", name)
    return {key: entry[naming] for key, entry in agreed.items() if entry.get(naming) and key not in refused}


def differing(expected, found):
    """The first keys on which we and the peers name different places."""
    wrong = {key: (where, found[key]) for key, where in expected.items() if found[key] != where}
    return len(wrong), dict(list(wrong.items())[:6])


@pytest.mark.parametrize("name", corpus.names_in("consensus"))
def test_weights_and_rows_of_the_native_model(verdicts, name):
    listed = corpus.load("lists", name)
    model = corpus.model(corpus.models_of(listed)[0])
    keys = verdicts(listed, model)
    expected = {
        key: {(weight.removesuffix(".weight"), first, first + rows) for weight, first, rows in places}
        for key, places in agreed_places(name, "native", keys).items()
    }
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
    keys = verdicts(listed, corpus.model(corpus.models_of(listed)[1]))
    expected = {
        key: {module.removeprefix("transformer.").removeprefix("unet.") for module, _ in places}
        for key, places in agreed_places(name, "diffusers", keys).items()
    }
    if not expected:
        pytest.skip("the peers do not agree on any module of diffusers'")
    found = {key: {to["module"] for to in keys[key]["targets"]} for key in expected}
    assert differing(expected, found) == (0, {})
