"""The other side: what diffusers makes of a file, and how far its weights may lie from ours.

diffusers and PEFT compute W' = rn(W + rn_f(fl32(up~ @ down~) * scale)), f being the dtype of the factors they hold:

- the converters multiply down and up by parts of alpha / rank, and text encoders' factors are cast to the encoder's
  dtype: up to two roundings of each factor;
- the product is summed in fp32, and rounded to f once more.

Ours differs from the exact sum by one rounding of W' and fp32 roundings of the sum. So, with u the rounding unit of f,
t half its smallest subnormal, s the strength times alpha / rank, and S = |s| * |up| @ |down|,

    |ours - theirs| <= ulp(ours) / 2 + ulp(theirs) / 2
                       + ((1 + u)^5 - 1) * S + what t brings in + 2 * (R + 4) * 2^-24 * (S + |W'|)
"""

from typing import Any

import torch
from adapter_files import Layer, Written, peers_at_peace
from numerics_bound import ulp
from tiny_pipelines import tiny_pipeline

_UNIT = {
    torch.float32: (2.0**-24, 2.0**-150),
    torch.float16: (2.0**-11, 2.0**-25),
    torch.bfloat16: (2.0**-8, 2.0**-134),
}


def fused_by_diffusers(
    kind: str, written: Written, dtype: torch.dtype, strength: float, into_transformer_2: bool = False
) -> Any:
    """A new pipeline with the adapter in its weights and no trace of PEFT."""
    pipeline = tiny_pipeline(kind, dtype)
    load_and_fuse(pipeline, written, strength, into_transformer_2)
    return pipeline


def load_and_fuse(pipeline: Any, written: Written, strength: float, into_transformer_2: bool = False) -> None:
    options = {"load_into_transformer_2": True} if into_transformer_2 else {}
    components = ["transformer_2"] if into_transformer_2 else written.components
    with peers_at_peace():
        pipeline.load_lora_weights(str(written.twin), **options)
        pipeline.fuse_lora(components=components, lora_scale=strength)
        pipeline.unload_lora_weights()


def allowance(
    ours: torch.Tensor, theirs: torch.Tensor, layer: Layer, strength: float, factors: torch.dtype
) -> torch.Tensor:
    """The bound above, elementwise; ``factors`` is the coarsest dtype that the factors pass through."""
    unit, subnormal = _UNIT[factors]
    down, up = layer.down.double().abs().flatten(1), layer.up.double().abs().flatten(1)
    scale = abs(strength * layer.scale)
    products = scale * (up @ down)
    widened = max(scale, abs(strength))  # alpha / rank may be in the factors already when they are rounded
    lost = subnormal * (1 + 2 * widened * (up.sum(1, keepdim=True) + down.sum(0, keepdim=True)))
    spread = ((1 + unit) ** 5 - 1) * products + lost
    sums = 2 * (down.shape[0] + 4) * 2.0**-24 * (products + ours.detach().double().abs().reshape(products.shape))
    return ulp(ours.detach()) / 2 + ulp(theirs.detach()) / 2 + (spread + sums).reshape(ours.shape)


def coarsest(*dtypes: torch.dtype) -> torch.dtype:
    return max(dtypes, key=lambda dtype: _UNIT[dtype][0])
