"""HunyuanVideo 1.5 (54 double blocks, width 2048). Blocks and text refiner are HunyuanVideo's, with q, k and v apart in
Tencent's names. It also reads glyphs (ByT5) and an image (SigLIP), and marks each of the three with an embedding."""

from __future__ import annotations

from . import hunyuan_video
from .flux1 import BLOCK
from .hunyuan_video import kept
from .tables import Family

# Also HunyuanImage's.
GLYPHS = (
    kept("byt5_in.layernorm", "context_embedder_2.norm"),
    kept("byt5_in.fc1", "context_embedder_2.linear_1"),
    kept("byt5_in.fc2", "context_embedder_2.linear_2"),
    kept("byt5_in.fc3", "context_embedder_2.linear_3"),
)

_IMAGE = (
    kept("vision_in.proj.0", "image_embedder.norm_in"),
    kept("vision_in.proj.1", "image_embedder.linear_1"),
    kept("vision_in.proj.3", "image_embedder.linear_2"),
    kept("vision_in.proj.4", "image_embedder.norm_out"),
)

FAMILY = Family(
    name="hunyuan_video15",
    title="HunyuanVideo 1.5",
    widths={BLOCK + "attn.to_q": (2048,)},
    written={"kohya": "tencent"},
    weights=(
        *hunyuan_video.double_blocks(apart=True),
        *hunyuan_video.TEXT_REFINER,
        *hunyuan_video.embedder("time_in", "time_embed.timestep_embedder"),
        *hunyuan_video.embedder("time_r_in", "time_embed.timestep_embedder_r"),
        kept("cond_type_embedding", "cond_type_embed"),
        *GLYPHS,
        *_IMAGE,
        *hunyuan_video.ENDS,
    ),
)
