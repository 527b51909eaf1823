"""A stack of Linears with Flux's shapes (black-forest-labs/FLUX.1-dev, transformer/config.json): 11.8 G parameters."""

from __future__ import annotations

from .sdxl_linears import Shapes

_WIDTH = 3072
_DOUBLE, _SINGLE = 19, 38


def flux_linears(double: int = _DOUBLE, single: int = _SINGLE, width: int = _WIDTH) -> Shapes:
    """The Linears of ``double`` and ``single`` blocks, by diffusers' names; 504 with the real numbers."""
    shapes: Shapes = {}
    for block in range(double):
        at = f"transformer_blocks.{block}"
        square = [f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
        square += [f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")]
        shapes |= {f"{at}.{name}": (width, width) for name in square}
        for stream in ("", "_context"):
            shapes[f"{at}.norm1{stream}.linear"] = (6 * width, width)
            shapes[f"{at}.ff{stream}.net.0.proj"] = (4 * width, width)
            shapes[f"{at}.ff{stream}.net.2"] = (width, 4 * width)
    for block in range(single):
        at = f"single_transformer_blocks.{block}"
        shapes |= {f"{at}.attn.{name}": (width, width) for name in ("to_q", "to_k", "to_v")}
        shapes[f"{at}.norm.linear"] = (3 * width, width)
        shapes[f"{at}.proj_mlp"] = (4 * width, width)
        shapes[f"{at}.proj_out"] = (width, 5 * width)
    return shapes
