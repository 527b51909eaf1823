"""Fused projections in the file, split ones in the model, and the other way round: each section is held on its own."""

import copy
import warnings

import pytest
import torch
from every_algorithm import ALGORITHMS, Filled
from stand_ins import holding

import lora_mmap
from bench.accuracy.error import measure
from bench.accuracy.reference import Layer, Use, composed

diffusers = pytest.importorskip("diffusers")

WIDTH = 16
QKV = "double_blocks.0.img_attn.qkv"
PARTS = ["to_q", "to_k", "to_v"]
BY_ROWS = [
    "LoRA",
    "LoHa",
    "LoKr",
    "full difference",
    "(IA)3, rows",
    "(IA)3, columns",
    "DoRA, rows",
    "DoRA over LoHa, rows",
    "DoRA over LoKr, rows",
]
BY_CHANNELS = ["DoRA, input channels", "DoRA over LoHa, input channels"]


def flux():
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=12,
            axes_dims_rope=(2, 2, 4),
        ).eval()


def fused_file(name):
    """(tensors of one fused [48, 16] projection by their endings, the file in BFL's own naming)."""
    own = ALGORITHMS[name].tensors((3 * WIDTH, WIDTH), Filled(torch.float32, 7))
    return own, {f"diffusion_model.{QKV}.{ending}": value for ending, value in own.items()}


def expected(weights, biases, own, strength):
    """The reference on the projections stacked as the file has them."""
    layer = Layer({"weight": torch.cat(weights), "bias": torch.cat(biases)})
    return composed(layer, [Use(own, strength)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", BY_ROWS)
def test_a_fused_file_on_a_split_model(name, dtype, sha256):
    own, tensors = fused_file(name)
    model = torch.nn.Module.to(flux(), dtype)
    pristine = copy.deepcopy(model)
    lora_mmap.compose(model, [(tensors, 0.7)], strict=True)
    before = [pristine.transformer_blocks[0].attn.get_submodule(part) for part in PARTS]
    after = [model.transformer_blocks[0].attn.get_submodule(part) for part in PARTS]
    found = expected([part.weight for part in before], [part.bias for part in before], own, 0.7)
    for parameter, (start, added) in found.items():
        stacked = torch.cat([getattr(part, parameter) for part in after])
        assert not torch.equal(stacked, torch.cat([getattr(part, parameter) for part in before]))
        assert measure(stacked, start, added).of_bound <= 1, parameter
    lora_mmap.reset(model)
    assert sha256(model) == sha256(pristine)


@pytest.mark.parametrize("name", BY_CHANNELS)
def test_a_norm_over_rows_that_lie_in_several_weights_is_never_a_norm_over_some(name, sha256):
    """The norm of an input channel is over all 48 rows; each split weight has 16 of them."""
    own, tensors = fused_file(name)
    model = flux()
    before = sha256(model)
    pristine = copy.deepcopy(model)
    report = lora_mmap.compose(model, [(tensors, 1.0)])
    if not report:
        keys = report.to_dict()["keys"]
        assert {key["outcome"] for key in keys.values()} == {"unsupported"}
        assert all(key["reason"] for key in keys.values())
        assert sha256(model) == before
        return
    blocks = [found.transformer_blocks[0].attn for found in (pristine, model)]
    weights, fused = ([block.get_submodule(part).weight for part in PARTS] for block in blocks)
    biases = [blocks[0].get_submodule(part).bias for part in PARTS]
    start, added = expected(weights, biases, own, 1.0)["weight"]
    assert measure(torch.cat(fused), start, added).of_bound <= 1


@pytest.mark.parametrize("name", BY_ROWS)
def test_split_files_on_a_fused_model(name, sha256):
    """q, k and v of diffusers' naming, each its own algorithm's tensors, in the rows of BFL's fused weight."""
    filled = Filled(torch.float32, 8)
    model = holding({f"{QKV}.weight": filled(3 * WIDTH, WIDTH), f"{QKV}.bias": filled(3 * WIDTH)})
    pristine = copy.deepcopy(model)
    own = {
        part: ALGORITHMS[name].tensors((WIDTH, WIDTH), Filled(torch.float16, seed)) for seed, part in enumerate(PARTS)
    }
    tensors = {
        f"transformer.transformer_blocks.0.attn.{part}.{ending}": value
        for part, found in own.items()
        for ending, value in found.items()
    }
    lora_mmap.compose(model, [(tensors, -0.6)], strict=True)
    old, new = (found.get_submodule(QKV) for found in (pristine, model))
    for index, part in enumerate(PARTS):
        rows = slice(index * WIDTH, (index + 1) * WIDTH)
        layer = Layer({"weight": old.weight[rows], "bias": old.bias[rows]})
        for parameter, (start, added) in composed(layer, [Use(own[part], -0.6)]).items():
            assert measure(getattr(new, parameter)[rows], start, added).of_bound <= 1, (part, parameter)
    lora_mmap.reset(model)
    assert sha256(model) == sha256(pristine)
