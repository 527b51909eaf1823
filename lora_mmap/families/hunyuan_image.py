"""HunyuanImage 2.1 (20 double and 40 single blocks, width 3584; Distilled, Refiner): HunyuanVideo's blocks and text
refiner, and glyphs (ByT5) as in HunyuanVideo 1.5. The distilled model embeds guidance and a second timestep."""

from __future__ import annotations

from . import hunyuan_video
from .flux1 import BLOCK, DOUBLE, SINGLE
from .hunyuan_video15 import GLYPHS
from .tables import Family

FAMILY = Family(
    name="hunyuan_image",
    title="HunyuanImage 2.1",
    widths={
        DOUBLE + "img_attn.qkv": (3584,),
        BLOCK + "attn.to_q": (3584,),
        SINGLE + "linear2": (17920,),
    },
    written={"kohya": "tencent"},
    weights=(
        *hunyuan_video.double_blocks(),
        *hunyuan_video.SINGLE_BLOCKS,
        *hunyuan_video.TEXT_REFINER,
        *hunyuan_video.embedder("time_in", "time_guidance_embed.timestep_embedder"),
        *hunyuan_video.embedder("time_r_in", "time_guidance_embed.timestep_embedder_r"),
        *hunyuan_video.embedder("guidance_in", "time_guidance_embed.guidance_embedder"),
        *GLYPHS,
        *hunyuan_video.ENDS,
    ),
)
