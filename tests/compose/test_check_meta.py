"""check() plans against models that hold no data: their names and shapes are all it needs."""

import pytest
import torch
from torch import nn

import lora_mmap


def meta_model(prefix: str = "") -> nn.Module:
    model = nn.Module()
    holder = model
    if prefix:
        holder = nn.Module()
        model.add_module(prefix, holder)
    block = nn.Module()
    block.attn = nn.Module()
    block.attn.to_qkv = nn.Linear(8, 24, device="meta")
    block.proj = nn.Linear(8, 16, device="meta")
    holder.transformer_blocks = nn.ModuleList([block])
    return model


def pair(stem: str, rows: int, cols: int = 8) -> dict[str, torch.Tensor]:
    return {f"{stem}.lora_A.weight": torch.ones(2, cols), f"{stem}.lora_B.weight": torch.ones(rows, 2)}


@pytest.mark.parametrize("prefix", ["", "diffusion_model"])
@pytest.mark.parametrize("spelling", ["", "transformer.", "diffusion_model."])
def test_names_shapes_and_sections(prefix, spelling):
    model = meta_model(prefix)
    path = "transformer_blocks.0."
    tensors = pair(spelling + path + "attn.to_k", 8) | pair(spelling + path + "proj", 16)
    report = lora_mmap.check(model, tensors, strict=True)
    keys = report.to_dict()["keys"]
    (target,) = keys[f"{spelling}{path}attn.to_k.lora_B.weight"]["targets"]
    holder = prefix + "." if prefix else ""
    assert target == {
        "module": holder + path + "attn.to_qkv",
        "role": "up",
        "rows": [8, 16],
        "cols": None,
        "layout": None,
    }
    assert keys[f"{spelling}{path}proj.lora_A.weight"]["targets"][0]["module"] == holder + path + "proj"


def test_shapes_that_do_not_fit_are_told():
    report = lora_mmap.check(meta_model(), pair("transformer_blocks.0.proj", 17))
    assert not report
    (key, *_) = report.to_dict()["keys"].values()
    assert "[17, 8]" in key["reason"]
    assert "[16, 8]" in key["reason"]


def test_compose_refuses_what_is_not_there():
    report = lora_mmap.compose(meta_model(), [(pair("transformer_blocks.0.proj", 16), 1.0)])
    assert not report
    (key, *_) = report.to_dict()["keys"].values()
    assert key["outcome"] == "unsupported"
    assert "meta" in key["reason"]
