"""The UNet's numbering: native blocks count through, diffusers has levels and layers. Written out here by hand."""

import pytest

from lora_mmap.errors import ArgumentError
from lora_mmap.families.counting import counting
from lora_mmap.families.writing import spell

LEVELS_OF_SD15 = [
    ("input_blocks.1.0.in_layers.2", "down_blocks.0.resnets.0.conv1"),
    ("input_blocks.5.1.proj_in", "down_blocks.1.attentions.1.proj_in"),
    ("input_blocks.11.0.out_layers.3", "down_blocks.3.resnets.1.conv2"),
    ("input_blocks.9.0.op", "down_blocks.2.downsamplers.0.conv"),
    ("output_blocks.0.0.skip_connection", "up_blocks.0.resnets.0.conv_shortcut"),
    ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
    ("output_blocks.8.2.conv", "up_blocks.2.upsamplers.0.conv"),
    ("output_blocks.11.1.transformer_blocks.0.attn2.to_k", "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k"),
]


@pytest.mark.parametrize(("native", "diffusers"), LEVELS_OF_SD15)
def test_blocks_of_sd15(native, diffusers):
    assert [to.path for to in spell(native, "kohya", "sd15")] == [diffusers]
    assert [to.path for to in spell(diffusers, "comfyui", "sd15")] == [native]


def test_the_upsampler_of_sdxl_follows_an_attention_on_every_level():
    assert [to.path for to in spell("up_blocks.0.upsamplers.0.conv", "kohya", "sdxl")] == ["output_blocks.2.2.conv"]
    assert [to.path for to in spell("up_blocks.0.upsamplers.0.conv", "comfyui", "sdxl_refiner")] == [
        "output_blocks.2.1.conv"
    ]


def test_a_layer_that_no_level_has_is_not_another_levels():
    with pytest.raises(ArgumentError, match="has no index"):
        spell("down_blocks.0.resnets.3.conv1", "comfyui", "sd15")


@pytest.mark.parametrize("body", ["i", "m:a|b", "x:*", "i*3+", "*3", "i+j"])
def test_what_is_no_formula(body):
    assert counting(body) is None
