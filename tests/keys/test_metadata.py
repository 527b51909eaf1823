"""What metadata changes: alphas that are not among the tensors, and factors that are no plain LoRA."""

import json

import pytest
import torch
from adapter_tensors import factors, keyed, write

import lora_mmap
from lora_mmap.errors import AdapterError
from lora_mmap.pairing import Pair, pair_up

PAIRS = keyed({"blocks.0.attn": factors(12, 8, 4), "blocks.1.attn": factors(12, 8, 4)}, prefix="base_model.model.")
LOHA = {"w1_a": (12, 4), "w1_b": (4, 8), "w2_a": (12, 4), "w2_b": (4, 8)}


def with_config(folder, tensors, **fields):
    """A folder as PEFT saves it: ``adapter_model.safetensors`` and ``adapter_config.json``."""
    write(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **fields}))
    return folder


def found_in(source):
    with lora_mmap.open_adapter(source) as adapter:
        return pair_up(adapter)


@pytest.mark.parametrize(
    ("fields", "scales", "source"),
    [
        ({"lora_alpha": 8}, [2.0, 2.0], "adapter_config.json"),
        ({"lora_alpha": 8, "use_rslora": True}, [4.0, 4.0], "adapter_config.json (rsLoRA)"),
        ({"lora_alpha": 8, "alpha_pattern": {"1.attn": 2}}, [2.0, 0.5], "adapter_config.json"),
        ({"lora_alpha": 8, "alpha_pattern": {"blocks.0.attn": 4, "attn": 2}}, [1.0, 0.5], "adapter_config.json"),
        ({"lora_alpha": 8, "r": 16, "rank_pattern": {"attn": 32}}, [2.0, 2.0], "adapter_config.json"),
        ({"r": 4}, [1.0, 1.0], "assumed (alpha = rank)"),
    ],
)
def test_the_scale_of_a_peft_configuration(tmp_path, fields, scales, source):
    """Ranks are the tensors' own, whatever ``r`` and ``rank_pattern`` say."""
    pairs = found_in(with_config(tmp_path, PAIRS, **fields))
    assert [pair.scale for pair in pairs] == scales
    assert {pair.scale_source for pair in pairs} == {source}


def test_an_alpha_among_the_tensors_goes_before_the_configuration(tmp_path):
    tensors = {**PAIRS, "base_model.model.blocks.0.attn.alpha": torch.tensor(2.0)}
    pairs = found_in(with_config(tmp_path, tensors, lora_alpha=8, use_rslora=True))
    assert {pair.scale_source: pair.scale for pair in pairs} == {"alpha key": 0.5, "adapter_config.json (rsLoRA)": 4.0}


def test_components_of_diffusers_metadata_have_their_own_alpha(tmp_path):
    tensors = {
        **keyed({"q": factors(12, 8, 4)}, prefix="transformer."),
        **keyed({"q": factors(12, 8, 4)}, prefix="text_encoder."),
    }
    said = {"transformer.lora_alpha": 8, "transformer.use_rslora": True, "text_encoder.lora_alpha": 2}
    path = write(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": json.dumps(said)})
    with lora_mmap.open_adapter(path) as adapter:
        scales = {group.stem: pair.scale for group, pair in zip(adapter.groups, pair_up(adapter), strict=True)}
        assert adapter.metadata.facts["trainer"] == "diffusers"
    assert scales == {"transformer.q": 4.0, "text_encoder.q": 0.5}


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({"peft_type": "LOHA", "alpha": 8}, 2.0),
        ({"peft_type": "LOHA", "alpha": 8, "alpha_pattern": {"q": 2}}, 0.5),
        ({"peft_type": "LOHA"}, 1.0),
    ],
)
def test_the_alpha_of_loha_as_peft_writes_it(tmp_path, fields, scale):
    tensors = {f"base_model.model.q.hada_{word}": torch.ones(shape) for word, shape in LOHA.items()}
    (found,) = found_in(with_config(tmp_path, tensors, **fields))
    assert (found.algorithm, found.rank, found.scale) == ("loha", 4, scale)


def test_whole_lokr_factors_of_peft_are_scaled_by_the_rank_that_only_the_configuration_has(tmp_path):
    tensors = {"base_model.model.q.lokr_w1": torch.ones(4, 4), "base_model.model.q.lokr_w2": torch.ones(3, 2)}
    fields = {"peft_type": "LOKR", "r": 8, "alpha": 16, "rank_pattern": {"k": 2}}
    (found,) = found_in(with_config(tmp_path, tensors, **fields))
    assert (found.scale, found.scale_source) == (2.0, "adapter_config.json")
    (found,) = found_in(with_config(tmp_path, tensors, **fields | {"rank_pattern": {"q": 4}}))
    assert found.scale == 4.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"init_lora_weights": "pissa"}, ["principal", "path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "pissa_niter_16"}, ["pissa_niter_16", "path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "olora"}, ["path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "corda"}, ["path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "lora_ga"}, ["path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "loftq"}, ["LoftQ quantised"]),
        ({"use_dora": True}, ["DoRA", "no magnitude vector"]),
        ({"use_qalora": True}, ["QALoRA"]),
        ({"use_bdlora": {"nblocks": 2}}, ["block-diagonal"]),
        ({"alora_invocation_tokens": [1, 2]}, ["tokens"]),
        ({"layer_replication": [[0, 2], [1, 3]]}, ["replicated"]),
    ],
)
def test_factors_that_are_not_added_as_they_are(tmp_path, fields, words):
    with lora_mmap.open_adapter(with_config(tmp_path, PAIRS, lora_alpha=8, **fields)) as adapter:
        assert not adapter.is_plain
        found = pair_up(adapter)
    assert {each.kind for each in found} == {"unsupported"}
    assert {each.forms["weight"] for each in found} == {(12, 8)}
    for word in ["adapter_config.json", *words]:
        assert word in found[0].reason


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica", None])
def test_starting_values_that_leave_the_base_weights_alone(tmp_path, start):
    with lora_mmap.open_adapter(with_config(tmp_path, PAIRS, lora_alpha=8, init_lora_weights=start)) as adapter:
        assert adapter.is_plain
        assert all(isinstance(pair, Pair) for pair in pair_up(adapter))


def test_kohyas_metadata_changes_nothing(tmp_path):
    tensors = keyed({"blocks_0_attn": factors(12, 8, 4)}, alpha=2, prefix="lora_unet_")
    said = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "64",
        "ss_network_alpha": "64",
        "ss_network_args": json.dumps({"rs_lora": "True"}),
        "ss_base_model_version": "sdxl_base_v1-0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    }
    with lora_mmap.open_adapter(write(tmp_path / "a.safetensors", tensors, said)) as adapter:
        (pair,) = pair_up(adapter)
        assert (pair.rank, pair.scale, pair.scale_source) == (4, 0.5, "alpha key")
        assert adapter.metadata.facts == {
            "trainer": "kohya",
            "network_module": "networks.lora",
            "network_dim": "64",
            "network_alpha": "64",
            "network_args": '{"rs_lora": "True"}',
            "base_model": "sdxl_base_v1-0",
            "architecture": "stable-diffusion-xl-v1-base/lora",
        }


@pytest.mark.parametrize(("value", "scale"), [("True", 1.0), (True, 1.0), ("False", 0.5), (False, 0.5)])
def test_glora_is_the_one_algorithm_of_lycoris_whose_alpha_does_not_hold_its_rslora(tmp_path, value, scale):
    shapes = {"a1": (8, 4), "a2": (4, 8), "b1": (12, 4), "b2": (4, 8)}
    tensors = {f"lora_unet_q.{word}.weight": torch.ones(shape) for word, shape in shapes.items()}
    tensors["lora_unet_q.alpha"] = torch.tensor(2.0)
    said = {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": "glora", "rs_lora": value})}
    (found,) = found_in(write(tmp_path / "a.safetensors", tensors, said))
    assert found.scale == scale
    assert ("rsLoRA" in found.scale_source) == (scale == 1.0)


@pytest.mark.parametrize(
    ("said", "trainer"),
    [
        ({"software": '{"name": "ai-toolkit", "repo": "x", "version": "0.5.1"}'}, "ai-toolkit 0.5.1"),
        ({"software": "some trainer"}, "some trainer"),
        ({"ot_branch": "master", "modelspec.architecture": "Flux.1-dev/lora"}, "OneTrainer"),
        ({"ss_network_module": "lycoris.kohya"}, "kohya with LyCORIS"),
        ({"format": "pt"}, None),
    ],
)
def test_who_trained_it(tmp_path, said, trainer):
    with lora_mmap.open_adapter(write(tmp_path / "a.safetensors", PAIRS, said)) as adapter:
        assert adapter.metadata.facts.get("trainer") == trainer


def test_facts_of_a_peft_configuration(tmp_path):
    fields = {"base_model_name_or_path": "org/model", "init_lora_weights": "gaussian"}
    with lora_mmap.open_adapter(with_config(tmp_path, PAIRS, **fields)) as adapter:
        assert adapter.metadata.facts == {
            "trainer": "PEFT",
            "peft_type": "LORA",
            "base_model": "org/model",
            "initialisation": "gaussian",
        }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lora_alpha": "eight"}, ["lora_alpha is 'eight'", "finite number"]),
        ({"lora_alpha": True}, ["lora_alpha is True"]),
        ({"peft_type": "LOHA", "alpha": []}, ["alpha is []"]),
        ({"r": "x"}, ["r is 'x'"]),
        ({"rank_pattern": ["q"]}, ["rank_pattern is ['q']", "an object"]),
        ({"rank_pattern": {"q(": 4}}, ["rank_pattern has 'q('", "regular expression"]),
        ({"alpha_pattern": {"q": None}}, ["alpha_pattern['q'] is None"]),
    ],
)
def test_malformed_configurations(tmp_path, fields, words):
    folder = with_config(tmp_path, PAIRS, **fields)
    with pytest.raises(AdapterError) as error:
        lora_mmap.open_adapter(folder)
    for word in ["[open_adapter]", "adapter_config.json", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '"text"'])
def test_malformed_diffusers_metadata(tmp_path, text):
    path = write(tmp_path / "a.safetensors", PAIRS, {"lora_adapter_metadata": text})
    with pytest.raises(AdapterError, match="lora_adapter_metadata"):
        lora_mmap.open_adapter(path)


@pytest.mark.parametrize("text", ["{", "[]", "no JSON at all"])
def test_network_args_that_are_no_json_are_shown_as_they_are(tmp_path, text):
    path = write(tmp_path / "a.safetensors", PAIRS, {"ss_network_args": text})
    with lora_mmap.open_adapter(path) as adapter:
        assert adapter.metadata.facts == {"network_args": text}
        assert not adapter.metadata.rslora_in_network_args
