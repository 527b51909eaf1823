"""AnimateDiff's motion modules, which stand beside the attention of a Stable Diffusion UNet. Motion LoRAs were first
published under the authors' names (``native``), in the attention processors' dialect."""

from __future__ import annotations

from collections.abc import Iterator

from .tables import Family, Naming, Weights, rows, same

_BLOCKS = ("{side:down|up}_blocks.{i}.motion_modules.{j}.", "mid_block.motion_modules.{j}.")


def _module(module: str) -> Iterator[Weights]:
    native, inner = module + "temporal_transformer.", "transformer_blocks.{n}."
    for number in (0, 1):
        here, there = f"{native}{inner}attention_blocks.{number}.", f"{module}{inner}attn{number + 1}."
        yield rows(
            "q k v",
            native={f"{here}to_{piece}": piece for piece in "qkv"},
            diffusers={f"{there}to_{piece}": piece for piece in "qkv"},
            processor={f"{here}processor.to_{piece}": piece for piece in "qkv"},
            fused={there + "to_qkv": "q k v"},
        )
        yield same(native=here + "to_out.0", diffusers=there + "to_out.0", processor=here + "processor.to_out")
        yield same(native=f"{native}{inner}norms.{number}", diffusers=f"{module}{inner}norm{number + 1}")
    yield same(native=native + inner + "ff_norm", diffusers=module + inner + "norm3")
    feed_forward = inner + "ff.net.{m:0.proj|2}"
    yield same(native=native + feed_forward, diffusers=module + feed_forward)
    yield same(native=native + "{m:norm|proj_in|proj_out}", diffusers=module + "{m:norm|proj_in|proj_out}")


FAMILY = Family(
    name="animatediff",
    title="AnimateDiff",
    namings=(Naming("processor", in_models=False),),
    written={"comfyui": "native"},
    is_unet=True,
    weights=tuple(weights for module in _BLOCKS for weights in _module(module)),
)
