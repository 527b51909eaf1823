"""Which family a file is for: told by its names, and by its shapes where names are the same."""

import pytest
import torch

import lora_mmap

NATIVE = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"
DIFFUSERS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
UP, MIDDLE = (f"{blocks}.transformer_blocks.0.attn2.to_k" for blocks in ("up_blocks.1.attentions.2", "middle_block.1"))


def families(*keys_and_widths, prefix=""):
    tensors = {}
    for path, columns in keys_and_widths:
        tensors |= {f"{prefix}{path}.lora_down.weight": torch.zeros(2, columns)}
        tensors |= {f"{prefix}{path}.lora_up.weight": torch.zeros(8, 2)}
    with lora_mmap.open_adapter(tensors) as adapter:
        assert adapter.describe()["family"] == next(iter(adapter.families), None)
        return adapter.families


@pytest.mark.parametrize("path", [NATIVE, DIFFUSERS, UP, MIDDLE])
@pytest.mark.parametrize(("columns", "family"), [(768, "sd15"), (1024, "sd2"), (2048, "sdxl"), (1280, "sdxl_refiner")])
def test_the_width_of_the_text_tells_unets_apart(path, columns, family):
    assert families((path, columns)) == [family]
    assert families((path.replace(".", "_"), columns), prefix="lora_unet_") == [family]


def test_all_stay_where_no_width_fits():
    assert set(families((DIFFUSERS, 7))) == {"sd15", "sd2", "sdxl", "sdxl_refiner"}


def test_a_text_encoder_beside_a_unet_does_not_count():
    encoder = [(f"text_model.encoder.layers.{i}.mlp.fc1", 768) for i in range(3)]
    assert families((DIFFUSERS, 768), *encoder) == ["sd15"]
    assert families(*encoder) == ["clip"]


def test_names_that_nobody_knows():
    assert families(("towers.0.bell", 8)) == []
    assert families((DIFFUSERS, 768), *((f"towers.{i}.bell", 8) for i in range(2))) == []


@pytest.mark.parametrize(
    ("path", "columns", "first"),
    [
        ("transformer_blocks.0.attn.to_q", 1536, "sd3"),
        ("transformer_blocks.0.attn.to_q", 3072, "flux1"),
        ("transformer_blocks.0.attn.to_q", 3584, "hunyuan_image"),
        ("double_blocks.0.img_attn.qkv", 4096, "flux2"),
        ("single_blocks.0.linear2", 12288, "flux2"),
        ("single_blocks.0.linear2", 15360, "flux1"),
    ],
)
def test_the_width_of_the_blocks_comes_before_the_order_of_the_tables(path, columns, first):
    """With keys of one kind alone, models that share their names have nothing else to be told by."""
    assert families((path, columns))[0] == first
