"""The Linears of SDXL's UNet as a table, for machines without diffusers.

Source: stabilityai/stable-diffusion-xl-base-1.0, unet/config.json, as diffusers' UNet2DConditionModel builds it.
"""

from __future__ import annotations

Shapes = dict[str, tuple[int, int]]  # module path -> (out, in)

_TIME, _TEXT, _ADDED = 1280, 2048, 2816


def sdxl_linears() -> Shapes:
    """All 743 of them, 2.1 G parameters."""
    shapes: Shapes = {
        "time_embedding.linear_1": (_TIME, 320),
        "time_embedding.linear_2": (_TIME, _TIME),
        "add_embedding.linear_1": (_TIME, _ADDED),
        "add_embedding.linear_2": (_TIME, _TIME),
    }
    for block, (width, depth) in enumerate(((320, 0), (640, 2), (1280, 10))):
        _block(shapes, f"down_blocks.{block}", width, resnets=2, attentions=2 if depth else 0, depth=depth)
    for block, (width, depth) in enumerate(((1280, 10), (640, 2), (320, 0))):
        _block(shapes, f"up_blocks.{block}", width, resnets=3, attentions=3 if depth else 0, depth=depth)
    _block(shapes, "mid_block", 1280, resnets=2, attentions=1, depth=10)
    return shapes


def _block(shapes: Shapes, path: str, width: int, resnets: int, attentions: int, depth: int) -> None:
    for resnet in range(resnets):
        shapes[f"{path}.resnets.{resnet}.time_emb_proj"] = (width, _TIME)
    for attention in range(attentions):
        at = f"{path}.attentions.{attention}"
        shapes[f"{at}.proj_in"] = shapes[f"{at}.proj_out"] = (width, width)
        for layer in range(depth):
            _transformer(shapes, f"{at}.transformer_blocks.{layer}", width)


def _transformer(shapes: Shapes, path: str, width: int) -> None:
    for kind, context in (("attn1", width), ("attn2", _TEXT)):
        shapes[f"{path}.{kind}.to_q"] = shapes[f"{path}.{kind}.to_out.0"] = (width, width)
        shapes[f"{path}.{kind}.to_k"] = shapes[f"{path}.{kind}.to_v"] = (width, context)
    shapes[f"{path}.ff.net.0.proj"] = (8 * width, width)
    shapes[f"{path}.ff.net.2"] = (width, 4 * width)
