"""Algorithms that are recognised and not fused: named with a reason, their weights untouched, the rest applied."""

import warnings

import pytest
import torch
from composing import assert_same_bytes, every_layer, tensors_for
from every_algorithm import ALGORITHMS, Filled
from torch import nn

import lora_mmap
from lora_mmap.errors import UnmatchedKeysError

LYCORIS = {
    "OFT": ("DiagOFTModule", {}),
    "OFT with rescaling": ("DiagOFTModule", {"rescaled": True}),
    "BOFT": ("ButterflyOFTModule", {}),
    "GLoRA": ("GLoRAModule", {}),
}
PEFT = {
    "OFT": ("OFTConfig", {"oft_block_size": 4, "r": 0}),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4}),
    "(IA)3": ("IA3Config", {"feedforward_modules": [], "init_ia3_weights": False}),
    "VeRA": ("VeraConfig", {}),
    "AdaLoRA": ("AdaLoraConfig", {"total_step": 10}),
    "GLoRA": ("GloraConfig", {}),
}


def model_at(dtype=torch.float32):
    """With a layer whose sides block rotations can divide."""
    model = every_layer()
    torch.manual_seed(3)
    model.wide = nn.Linear(32, 64)
    return model.to(dtype)


def of_lycoris(name):
    modules = pytest.importorskip("lycoris.modules")
    kind, options = LYCORIS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(modules, kind)("m", model_at().wide, 1.0, 4, 2.0, **options)
    return {f"lycoris_wide.{key}": value.detach().clone() for key, value in made.state_dict().items()}


def of_peft(name):
    peft = pytest.importorskip("peft")
    kind, options = PEFT[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model_at(), getattr(peft, kind)(target_modules=["wide"], **options))
        tensors = peft.get_peft_model_state_dict(model)
    return {key: value.detach().clone() for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("make", "name"),
    [*((of_lycoris, name) for name in LYCORIS), *((of_peft, name) for name in PEFT)],
    ids=[*(f"LyCORIS {name}" for name in LYCORIS), *(f"PEFT {name}" for name in PEFT)],
)
def test_unsupported_and_said_so(make, name):
    foreign = make(name)
    with torch.no_grad():
        for value in foreign.values():
            if value.is_floating_point() and value.dim():
                value.normal_()
    model, alone = model_at(torch.bfloat16), model_at(torch.bfloat16)
    pristine = model_at(torch.bfloat16)
    assert not lora_mmap.compose(model, [(foreign, 1.0)])
    assert_same_bytes(model, pristine)
    with pytest.raises(UnmatchedKeysError):
        lora_mmap.compose(model, [(foreign, 1.0)], strict=True)

    beside = tensors_for(model, ALGORITHMS["DoRA, rows"], Filled(torch.float16), only=["image", "point"])
    report = lora_mmap.compose(model, [({**foreign, **beside}, 0.8)])
    lora_mmap.compose(alone, [(beside, 0.8)])
    assert_same_bytes(model, alone)
    keys = report.to_dict()["keys"]
    for key in foreign:
        shared = key.startswith("base_model.vera_")  # no module's
        assert keys[key]["outcome"] == ("absent" if shared else "unsupported"), key
        assert keys[key]["reason"], key
    assert {keys[key]["outcome"] for key in beside} == {"applied"}
