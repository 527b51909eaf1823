"""Namings whose paths are also another naming's, told apart by what the file says besides: MiniMax-H3, Anime-Z."""

import pytest
import torch
from stand_ins import holding

import lora_mmap

HEADS, HEAD, WIDTH, RANK = 2, 128, 16, 3
INNER = HEADS * HEAD
# Modules by which models of MiniMax-H3 are known: PixArt's have the same names otherwise.
MARKS = {"blocks__0__adaln_proj__linear": (4, WIDTH), "transformer_blocks__0__adaln_proj__linear": (4, WIDTH)}


def module(**shapes):
    """A model with a weight of zeros at each path, written with ``__`` for dots."""
    return holding({f"{path.replace('__', '.')}.weight": torch.zeros(shape) for path, shape in shapes.items()})


def pair(rows, cols):
    return torch.randn(rows, RANK), torch.randn(RANK, cols)


def fused(model, path):
    return model.get_submodule(path).weight.detach()


def stacked(delta):
    """Rows stored head by head (q, k, v of the first head, of the second, ...) as q, k and v one after the other."""
    return delta.unflatten(0, (HEADS, 3, HEAD)).transpose(0, 1).flatten(0, 2)


@pytest.mark.parametrize(("infix", "order"), [("default.", stacked), ("", lambda delta: delta)])
@pytest.mark.parametrize("apart", [False, True])
def test_minimax_h3_of_diffsynth_is_stored_head_by_head(infix, order, apart):
    native, diffusers = "blocks__0__attn__qkv_proj", "transformer_blocks__0__attn__to_"
    shapes = {diffusers + x: (INNER, WIDTH) for x in "qkv"} if apart else {native: (3 * INNER, WIDTH)}
    model = module(**shapes, **MARKS)
    up, down = pair(3 * INNER, WIDTH)
    key = "blocks.0.attn.qkv_proj.lora_"
    tensors = {f"{key}A.{infix}weight": down, f"{key}B.{infix}weight": up}
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    found = torch.cat([fused(model, path.replace("__", ".")) for path in shapes])
    torch.testing.assert_close(found, order(up @ down))


@pytest.mark.parametrize("infix", ["default.", ""])
def test_minimax_h3_has_the_gate_first_and_diffusers_the_value(infix):
    model = module(transformer_blocks__0__ff__net__0__proj=(8, WIDTH), **MARKS)
    up, down = pair(8, WIDTH)
    key = "blocks.0.mlp.fc1.lora_"
    lora_mmap.compose(model, [({f"{key}A.{infix}weight": down, f"{key}B.{infix}weight": up}, 1.0)], strict=True)
    torch.testing.assert_close(fused(model, "transformer_blocks.0.ff.net.0.proj"), (up @ down).roll(4, 0))


def test_heads_that_are_no_multiple_of_128_rows_do_not_fit():
    model = module(blocks__0__attn__qkv_proj=(3 * 96, WIDTH), **MARKS)
    up, down = pair(3 * 96, WIDTH)
    key = "blocks.0.attn.qkv_proj.lora_"
    report = lora_mmap.check(model, {f"{key}A.default.weight": down, f"{key}B.default.weight": up})
    verdict = report.to_dict()["keys"][f"{key}B.default.weight"]
    assert verdict["outcome"] == "unsupported"
    assert f"make [{3 * 96}, {WIDTH}], expected" in verdict["reason"]


@pytest.mark.parametrize("apart", [False, True])
def test_what_anime_z_repeats_is_fused_once(apart):
    attention = "layers__0__attention__"
    split = {f"{attention}to_{x}": (WIDTH, WIDTH) for x in ("q", "k", "v")} | {f"{attention}to_out__0": (WIDTH, WIDTH)}
    model = module(**split if apart else {f"{attention}qkv": (3 * WIDTH, WIDTH), f"{attention}out": (WIDTH, WIDTH)})
    tensors, expected = {}, []
    for path in ("to.q", "to.k", "to.v", "to_out.0"):
        up, down = pair(WIDTH, WIDTH)
        expected.append(up @ down)
        tensors |= {f"layers.0.attention.{path}.lora.{half}.weight": x for half, x in (("up", up), ("down", down))}
    for path, rows in (("qkv", 3 * WIDTH), ("out", WIDTH)):
        up, down = pair(rows, WIDTH)
        tensors |= {f"layers.0.attention.{path}.lora.{half}.weight": x for half, x in (("up", up), ("down", down))}
    report = lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    found = torch.cat(list(model.parameters()))
    torch.testing.assert_close(found, torch.cat(expected))
    outcomes = report.to_dict()["keys"]
    assert outcomes["layers.0.attention.qkv.lora.up.weight"]["outcome"] == "ignored"
    assert outcomes["layers.0.attention.out.lora.up.weight"]["outcome"] == "ignored"
