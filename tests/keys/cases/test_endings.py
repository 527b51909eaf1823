"""What stands after a module's path: cases 30, 31 and 32."""

import pytest
import torch
from file_tensors import Factors, factors
from small_models import H, composed, model_of, same, where

import lora_mmap

QWEN = {f"transformer_blocks.0.attn.to_{x}": (H, H) for x in "qkv"}
QWEN_FUSED = {"transformer_blocks.0.attn.to_qkv": (3 * H, H)}


def under(pair: Factors, down: str, up: str, **alpha: str) -> dict[str, torch.Tensor]:
    """The pair's tensors under keys of any ending."""
    tensors = {down: pair.down, up: pair.up}
    return tensors | {key: torch.tensor(float(pair.alpha)) for key in alpha.values()}


def test_case_30_lora_dot_down():
    """``transformer.transformer_blocks.0.attn.to_k.lora.down.weight`` (Qwen-Image): A, in the words of diffusers before
    PEFT."""
    pair = factors(H, H, rank=3)
    stem = "transformer.transformer_blocks.0.attn.to_k"
    tensors = under(pair, f"{stem}.lora.down.weight", f"{stem}.lora.up.weight")
    added, keys = composed(model_of(QWEN), tensors)
    same(added["transformer_blocks.0.attn.to_k"], pair.delta)
    assert keys[f"{stem}.lora.down.weight"]["targets"][0]["role"] == "down"
    added, keys = composed(model_of(QWEN_FUSED), tensors)
    same(added["transformer_blocks.0.attn.to_qkv"][H : 2 * H], pair.delta)
    assert where(keys[f"{stem}.lora.up.weight"]) == [("transformer_blocks.0.attn.to_qkv", [H, 2 * H], None, None)]


@pytest.mark.parametrize("name", ["default", "default_0", "adapter-1", "my_style"])
@pytest.mark.parametrize("ending", [".weight", ""])
def test_case_31_the_adapters_name_in_the_key(name, ending):
    """``to_q.lora_A.default_0.weight``: PEFT's name of the adapter, without a dot, is no part of the module's path."""
    pair = factors(H, H)
    stem = "transformer.transformer_blocks.0.attn.to_q"
    down, up = f"{stem}.lora_A.{name}{ending}", f"{stem}.lora_B.{name}{ending}"
    added, keys = composed(model_of(QWEN), under(pair, down, up))
    same(added["transformer_blocks.0.attn.to_q"], pair.delta)
    assert [keys[key]["targets"][0]["role"] for key in (down, up)] == ["down", "up"]


def test_case_31_two_adapters_in_one_file_are_two_adapters():
    """Each with its own rank, and the alpha beside them for both."""
    one, two = factors(H, H, rank=1), factors(H, H, rank=4)
    stem = "transformer_blocks.0.attn.to_q"
    tensors = under(one, f"{stem}.lora_A.default_0.weight", f"{stem}.lora_B.default_0.weight")
    tensors |= under(two, f"{stem}.lora_A.default_1.weight", f"{stem}.lora_B.default_1.weight")
    model = model_of(QWEN)
    added, _ = composed(model, tensors)
    same(added[stem], one.delta + two.delta)
    before = model.get_submodule(stem).weight - added[stem]
    tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    report = lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    same(model.get_submodule(stem).weight - before, 2.0 * one.delta + 0.5 * two.delta)
    assert report.applied == 2
    assert where(report.to_dict()["keys"][f"{stem}.alpha"]) == [(stem, None, None, None)]
    with lora_mmap.open_adapter(tensors) as adapter:
        described = adapter.describe()
    assert described["algorithms"] == {"lora": 2}
    assert described["counts"] == {"recognised": 5}


UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
UNET_NATIVE = "input_blocks.4.1.transformer_blocks.0.attn1"


@pytest.mark.parametrize("module", [f"{UNET}.to_out.0", f"{UNET_NATIVE}.to_out.0"], ids=["diffusers", "native"])
@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_case_32_the_processors_to_out_lora(prefix, module):
    """``...attn1.processor.to_out_lora.down.weight``: the attention's ``to_out.0``."""
    pair = factors(H, H)
    stem = f"{prefix}{UNET}.processor.to_out_lora"
    added, keys = composed(model_of({module: (H, H)}), under(pair, f"{stem}.down.weight", f"{stem}.up.weight"))
    same(added[module], pair.delta)
    assert where(keys[f"{stem}.down.weight"]) == [(module, None, None, None)]


@pytest.mark.parametrize("part", ["to_q", "to_k", "to_v"])
def test_case_32_and_its_other_three(part):
    pair = factors(H, H)
    stem = f"unet.{UNET}.processor.{part}_lora"
    added, _ = composed(
        model_of({f"{UNET_NATIVE}.{part}": (H, H)}), under(pair, f"{stem}.down.weight", f"{stem}.up.weight")
    )
    same(added[f"{UNET_NATIVE}.{part}"], pair.delta)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (".lora_down.weight", ".lora_up.weight"),
        (".lora_A.weight", ".lora_B.weight"),
        (".lora.down.weight", ".lora.up.weight"),
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
        (".lora_A", ".lora_B"),
        (".lora_A.default.weight", ".lora_B.default.weight"),
        (".lora_down.default.weight", ".lora_up.default.weight"),
    ],
)
@pytest.mark.parametrize("alpha", [".alpha", ".lora_alpha"])
def test_every_spelling_of_a_pair_means_the_same(down, up, alpha):
    pair = factors(H, H, rank=4, alpha=1)
    stem = "transformer_blocks.0.attn.to_q"
    added, _ = composed(model_of(QWEN), under(pair, stem + down, stem + up, alpha=stem + alpha))
    same(added[stem], pair.delta)
