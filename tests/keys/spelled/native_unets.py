"""What the LDM and SGM checkpoints call the modules of SD1.5's and SDXL's UNet: diffusers' module -> theirs.

Both number their blocks as one flat list down (``input_blocks``) and one up (``output_blocks``). Blocks written out as
they are, not by formula.
"""

from collections.abc import Iterable

_SD15 = {
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.resnets.1": "input_blocks.2.0",
    "down_blocks.0.attentions.1": "input_blocks.2.1",
    "down_blocks.0.downsamplers.0": "input_blocks.3.0",
    "down_blocks.1.resnets.0": "input_blocks.4.0",
    "down_blocks.1.attentions.0": "input_blocks.4.1",
    "down_blocks.1.resnets.1": "input_blocks.5.0",
    "down_blocks.1.attentions.1": "input_blocks.5.1",
    "down_blocks.1.downsamplers.0": "input_blocks.6.0",
    "down_blocks.2.resnets.0": "input_blocks.7.0",
    "down_blocks.2.attentions.0": "input_blocks.7.1",
    "down_blocks.2.resnets.1": "input_blocks.8.0",
    "down_blocks.2.attentions.1": "input_blocks.8.1",
    "down_blocks.2.downsamplers.0": "input_blocks.9.0",
    "down_blocks.3.resnets.0": "input_blocks.10.0",
    "down_blocks.3.resnets.1": "input_blocks.11.0",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.resnets.2": "output_blocks.2.0",
    "up_blocks.0.upsamplers.0": "output_blocks.2.1",
    "up_blocks.1.resnets.0": "output_blocks.3.0",
    "up_blocks.1.attentions.0": "output_blocks.3.1",
    "up_blocks.1.resnets.1": "output_blocks.4.0",
    "up_blocks.1.attentions.1": "output_blocks.4.1",
    "up_blocks.1.resnets.2": "output_blocks.5.0",
    "up_blocks.1.attentions.2": "output_blocks.5.1",
    "up_blocks.1.upsamplers.0": "output_blocks.5.2",
    "up_blocks.2.resnets.0": "output_blocks.6.0",
    "up_blocks.2.attentions.0": "output_blocks.6.1",
    "up_blocks.2.resnets.1": "output_blocks.7.0",
    "up_blocks.2.attentions.1": "output_blocks.7.1",
    "up_blocks.2.resnets.2": "output_blocks.8.0",
    "up_blocks.2.attentions.2": "output_blocks.8.1",
    "up_blocks.2.upsamplers.0": "output_blocks.8.2",
    "up_blocks.3.resnets.0": "output_blocks.9.0",
    "up_blocks.3.attentions.0": "output_blocks.9.1",
    "up_blocks.3.resnets.1": "output_blocks.10.0",
    "up_blocks.3.attentions.1": "output_blocks.10.1",
    "up_blocks.3.resnets.2": "output_blocks.11.0",
    "up_blocks.3.attentions.2": "output_blocks.11.1",
}
_SDXL = {
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.resnets.1": "input_blocks.2.0",
    "down_blocks.0.downsamplers.0": "input_blocks.3.0",
    "down_blocks.1.resnets.0": "input_blocks.4.0",
    "down_blocks.1.attentions.0": "input_blocks.4.1",
    "down_blocks.1.resnets.1": "input_blocks.5.0",
    "down_blocks.1.attentions.1": "input_blocks.5.1",
    "down_blocks.1.downsamplers.0": "input_blocks.6.0",
    "down_blocks.2.resnets.0": "input_blocks.7.0",
    "down_blocks.2.attentions.0": "input_blocks.7.1",
    "down_blocks.2.resnets.1": "input_blocks.8.0",
    "down_blocks.2.attentions.1": "input_blocks.8.1",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.resnets.2": "output_blocks.2.0",
    "up_blocks.0.attentions.2": "output_blocks.2.1",
    "up_blocks.0.upsamplers.0": "output_blocks.2.2",
    "up_blocks.1.resnets.0": "output_blocks.3.0",
    "up_blocks.1.attentions.0": "output_blocks.3.1",
    "up_blocks.1.resnets.1": "output_blocks.4.0",
    "up_blocks.1.attentions.1": "output_blocks.4.1",
    "up_blocks.1.resnets.2": "output_blocks.5.0",
    "up_blocks.1.attentions.2": "output_blocks.5.1",
    "up_blocks.1.upsamplers.0": "output_blocks.5.2",
    "up_blocks.2.resnets.0": "output_blocks.6.0",
    "up_blocks.2.resnets.1": "output_blocks.7.0",
    "up_blocks.2.resnets.2": "output_blocks.8.0",
}
_MIDDLE = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def native_unet(model: str, modules: Iterable[str]) -> dict[str, str]:
    """{diffusers' module: native module} for modules of ``sd15`` or ``sdxl``."""
    blocks = {**(_SD15 if model == "sd15" else _SDXL), **_MIDDLE}
    return {module: _OUTSIDE.get(module) or _inside(blocks, module) for module in modules}


def _inside(blocks: dict[str, str], module: str) -> str:
    levels = module.split(".")
    depth = 3 if levels[0] == "mid_block" else 4
    block, rest = ".".join(levels[:depth]), ".".join(levels[depth:])
    if levels[depth - 2] == "resnets":
        rest = _RESNET[rest]
    elif levels[depth - 2] == "downsamplers":
        rest = "op"
    return f"{blocks[block]}.{rest}"
