"""HunyuanVideo 1.5 (54 double blocks, width 2048). Blocks and text refiner are HunyuanVideo's, with q, k and v apart in
Tencent's names. It also reads glyphs (ByT5) and an image (SigLIP), and marks each of the three with an embedding."""

from __future__ import annotations

from . import hunyuan_video
from .tables import Family, same

# Also HunyuanImage's.
GLYPHS = (
    same(native="byt5_in.layernorm", diffusers="context_embedder_2.norm"),
    same(native="byt5_in.fc1", diffusers="context_embedder_2.linear_1"),
    same(native="byt5_in.fc2", diffusers="context_embedder_2.linear_2"),
    same(native="byt5_in.fc3", diffusers="context_embedder_2.linear_3"),
)

_IMAGE = (
    same(native="vision_in.proj.0", diffusers="image_embedder.norm_in"),
    same(native="vision_in.proj.1", diffusers="image_embedder.linear_1"),
    same(native="vision_in.proj.3", diffusers="image_embedder.linear_2"),
    same(native="vision_in.proj.4", diffusers="image_embedder.norm_out"),
)

FAMILY = Family(
    name="hunyuan_video15",
    title="HunyuanVideo 1.5",
    written={"kohya": "tencent_split tencent"},
    weights=(
        *hunyuan_video.DOUBLE_BLOCKS,
        *hunyuan_video.TEXT_REFINER,
        *hunyuan_video.embedder("time_in", "time_embed.timestep_embedder"),
        *hunyuan_video.embedder("time_r_in", "time_embed.timestep_embedder_r"),
        same(native="cond_type_embedding", diffusers="cond_type_embed"),
        *GLYPHS,
        *_IMAGE,
        *hunyuan_video.ENDS,
    ),
)
