"""Every tuner of PEFT that acts on single layers, in the tensors that PEFT itself saves."""

import warnings

import pytest
import torch
from recognised_groups import FUSED, groups_of
from torch import nn

from lora_mmap.pairing import Pair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 32)
        self.inner = nn.Linear(32, 48)
        self.image = nn.Conv2d(8, 16, 3)
        self.head = nn.Linear(48, 4)


def saved(config, keep_name=False):
    """What PEFT saves of an adapter for ``Layers``; with ``keep_name`` as it is in the model's own state dict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(Layers(), config)
        tensors = peft.get_peft_model_state_dict(model)
    if keep_name:
        bare = {key.removesuffix(".weight") for key in tensors}
        own = model.state_dict().items()
        tensors = {key: value for key, value in own if key.replace(".default", "").removesuffix(".weight") in bare}
    return {key: value.detach().clone() for key, value in tensors.items()}


def configured(name, targets=("inner",), **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(peft, name)(target_modules=list(targets), **options)


def path(name):
    return f"base_model.model.{name}"


@pytest.mark.parametrize("keep_name", [False, True])
@pytest.mark.parametrize(
    ("config", "options", "target", "algorithm", "form"),
    [
        ("LoHaConfig", {"r": 4}, "inner", "loha", (48, 32)),
        ("LoHaConfig", {"r": 4, "use_effective_conv2d": True}, "image", "loha", (16, 72)),
        ("LoKrConfig", {"r": 2, "decompose_both": True}, "inner", "lokr", (48, 32)),
        ("LoKrConfig", {"r": 2}, "image", "lokr", (16, 72)),
        ("IA3Config", {"feedforward_modules": []}, "inner", "ia3_peft", (48, None)),
        ("IA3Config", {"feedforward_modules": ["inner"]}, "inner", "ia3_peft", (None, 32)),
        ("IA3Config", {"feedforward_modules": []}, "image", "ia3_peft", (None, None)),
        ("OFTConfig", {"oft_block_size": 4, "r": 0}, "inner", "oft_peft", (None, 32)),
        ("OFTConfig", {"oft_block_size": 4, "r": 0}, "image", "oft_peft", (None, 72)),
        ("BOFTConfig", {"boft_block_size": 4}, "inner", "boft_peft", (48, 32)),
        ("BOFTConfig", {"boft_block_size": 4}, "image", "boft_peft", (16, 72)),
        ("LoraConfig", {"use_dora": True}, "inner", "dora", (48, 32)),
        ("LoraConfig", {"use_dora": True}, "image", "dora", (16, 72)),
        ("LoraConfig", {"use_dora": True}, "table", "dora", (20, 32)),
        ("LoraConfig", {}, "table", "embedding", (20, 32)),
        ("LoraConfig", {"lora_bias": True}, "inner", "lora_bias", (48, 32)),
        ("AdaLoraConfig", {"total_step": 10}, "inner", "adalora", (48, 32)),
    ],
)
def test_what_peft_saves(config, options, target, algorithm, form, keep_name):
    found = groups_of(saved(configured(config, (target,), **options), keep_name))[path(target)]
    assert (found.kind, found.algorithm) == ("supported" if algorithm in FUSED else "unsupported", algorithm)
    assert found.forms["weight"] == form
    assert found.forms.get("bias") == ((48, 1) if algorithm == "lora_bias" else None)


@pytest.mark.parametrize(
    ("target", "axis"),
    [("inner", "norm per output row"), ("image", "norm per output row"), ("table", "norm per input column")],
)
def test_the_axis_of_dora(target, axis):
    found = groups_of(saved(configured("LoraConfig", (target,), use_dora=True)))[path(target)]
    assert found.detail.endswith(axis)


@pytest.mark.parametrize("keep_name", [False, True])
@pytest.mark.parametrize(
    ("config", "options", "algorithm"),
    [
        ("AdamssConfig", {}, "adamss"),
        ("BeftConfig", {}, "beft"),
        ("C3AConfig", {"block_size": 16}, "c3a"),
        ("DeftConfig", {}, "deft"),
        ("DeloraConfig", {}, "delora"),
        ("FourierFTConfig", {}, "fourierft"),
        ("FrodConfig", {}, "frod"),
        ("GloraConfig", {}, "glora_peft"),
        ("GraloraConfig", {}, "gralora"),
        ("HiraConfig", {}, "hira"),
        ("HRAConfig", {}, "hra"),
        ("LilyConfig", {}, "lily"),
        ("MissConfig", {"r": 8}, "miss"),
        ("OSFConfig", {}, "osf"),
        ("PeanutConfig", {}, "peanut"),
        ("PolyConfig", {}, "poly"),
        ("PsoftConfig", {}, "psoft"),
        ("PveraConfig", {}, "pvera"),
        ("RandLoraConfig", {}, "randlora"),
        ("RoadConfig", {"group_size": 8}, "road"),
        ("ShiraConfig", {"r": 2}, "shira"),
        ("SupertuningConfig", {}, "supertuning"),
        ("TinyLoraConfig", {}, "tinylora"),
        ("TrainableTokensConfig", {"token_indices": [1, 2]}, "trainable_tokens"),
        ("UniLoraConfig", {}, "unilora"),
        ("VBLoRAConfig", {"vector_length": 8, "num_vectors": 10}, "vblora"),
        ("VeraConfig", {}, "vera"),
        ("WaveFTConfig", {"n_frequency": 100}, "waveft"),
    ],
)
def test_tuners_that_are_known_and_not_fused(config, options, algorithm, keep_name):
    """Shared tensors (``base_model.vera_A``) too: none of a tuner's keys is unknown or taken for something else."""
    if not hasattr(peft, config):
        pytest.skip(f"this PEFT has no {config}")
    target = "table" if config == "TrainableTokensConfig" else "inner"
    tensors = saved(configured(config, (target,), **options), keep_name)
    groups = groups_of(tensors)
    assert tensors
    assert {(found.kind, found.algorithm) for found in groups.values()} == {("unsupported", algorithm)}
    with_unknown = {**tensors, "m.unheard_of": torch.ones(1)}
    assert groups_of(with_unknown).keys() == groups.keys()


def test_lora_is_a_plain_pair_with_and_without_an_adapter_name():
    for keep_name in (False, True):
        groups = groups_of(saved(configured("LoraConfig", ("inner", "image")), keep_name))
        assert {(found.rows, found.cols) for found in groups.values() if isinstance(found, Pair)} == {
            (48, 32),
            (16, 72),
        }


def test_modules_to_save_and_trained_biases():
    groups = groups_of(saved(configured("LoraConfig", bias="all", modules_to_save=["head"])))
    inner, head = groups[path("inner")], groups[path("head")]
    assert (inner.algorithm, inner.forms) == ("whole", {"weight": (48, 32), "bias": (48, 1)})
    assert (head.algorithm, head.forms) == ("whole", {"weight": (4, 48), "bias": (4, 1)})
    assert groups[path("image")].forms == {"bias": (16, 1)}
    assert "modules_to_save" in head.reason


def test_trained_tokens_beside_lora():
    groups = groups_of(saved(configured("LoraConfig", trainable_token_indices={"table": [1, 2]})))
    assert isinstance(groups[path("inner")], Pair)
    assert groups[path("table")].algorithm == "trainable_tokens"


def test_pefts_copy_of_a_module_as_it_was_is_nothing_to_apply():
    groups = groups_of(
        {
            "head.original_module.weight": (4, 8),
            "head.original_module.bias": (4,),
            "m.lora_A.weight": (2, 8),
            "m.lora_B.weight": (8, 2),
        }
    )
    assert groups["head"].kind == "ignored"
    assert "before training" in groups["head"].reason
