"""What stands before a module's path, and paths that cannot be told by their separators: cases 8, 9, 11, 12, 13 and 33.

Underscores are undone by looking flattened names up in the model, never by splitting.
"""

import pytest
from file_tensors import factors, kohya
from small_models import H, composed, model_of, same, where


def lands_on(stem, module, modules):
    """Composes one pair named ``stem``; it must be all of ``module``, and no other module may change."""
    pair = factors(*modules[module], rank=3, alpha=2)
    added, keys = composed(model_of(modules), kohya(stem, pair))
    same(added.pop(module), pair.delta)
    assert not any(other.any() for other in added.values())
    for ending in ("lora_down.weight", "lora_up.weight", "alpha"):
        assert where(keys[f"{stem}.{ending}"]) == [(module, None, None, None)]


Z_IMAGE = {
    "layers.0.attention.to_out.0": (H, H),
    "layers.0.attention.to_q": (H, H),
    "layers.0.attention.to_k": (H, H),
    "layers.0.attention.to_v": (H, H),
    "layers.0.adaLN_modulation.0": (4 * H, H),
    "layers.0.feed_forward.w2": (H, 2 * H),
    "noise_refiner.1.attention.to_out.0": (H, H),
    "context_refiner.0.feed_forward.w2": (H, 2 * H),
    "all_x_embedder.2-1": (H, 4),
    "all_final_layer.2-1.linear": (4, H),
    "all_final_layer.2-1.adaLN_modulation.1": (H, H),
    "cap_embedder.1": (H, H),
    "t_embedder.mlp.0": (H, H),
}
Z_IMAGE_NATIVE = {
    "layers.0.attention.out": (H, H),
    "layers.0.attention.qkv": (3 * H, H),
    "layers.0.adaLN_modulation.0": (4 * H, H),
    "noise_refiner.1.attention.out": (H, H),
    "x_embedder": (H, 4),
    "final_layer.linear": (4, H),
    "final_layer.adaLN_modulation.1": (H, H),
    "cap_embedder.1": (H, H),
}


@pytest.mark.parametrize(
    ("modules", "module"),
    [(Z_IMAGE, "layers.0.attention.to_out.0"), (Z_IMAGE_NATIVE, "layers.0.attention.out")],
    ids=["diffusers", "native"],
)
def test_case_08_to_out_0_of_z_image(modules, module):
    """``lora_unet_layers_0_attention_to_out_0``; ComfyUI-native it is ``attention.out``."""
    lands_on("lora_unet_layers_0_attention_to_out_0", module, modules)


@pytest.mark.parametrize("modules", [Z_IMAGE, Z_IMAGE_NATIVE], ids=["diffusers", "native"])
def test_case_09_ada_ln_modulation_0_of_z_image(modules):
    """``lora_unet_layers_0_adaLN_modulation_0``: two underscores of which only the last is a dot."""
    lands_on("lora_unet_layers_0_adaLN_modulation_0", "layers.0.adaLN_modulation.0", modules)


@pytest.mark.parametrize("module", Z_IMAGE)
def test_every_flattened_name_of_z_image(module):
    """Refiners, embedders and modulation hold underscores of their own."""
    lands_on(f"lora_unet_{module.replace('.', '_')}", module, Z_IMAGE)


WAN = {"blocks.0.cross_attn.k": (H, H), "blocks.0.cross_attn.k_img": (H, H), "blocks.22.self_attn.k": (H, H)}
WAN_DIFFUSERS = {"blocks.0.attn2.to_k": (H, H), "blocks.0.attn2.add_k_proj": (H, H), "blocks.22.attn1.to_k": (H, H)}


@pytest.mark.parametrize(
    ("stem", "module", "modules"),
    [
        ("lora_unet__layers_0_attention_to_k", "layers.0.attention.to_k", Z_IMAGE),
        ("lora_unet__layers_0_attention_to_out_0", "layers.0.attention.out", Z_IMAGE_NATIVE),
        ("lora_unet__blocks_0_cross_attn_k", "blocks.0.cross_attn.k", WAN),
        ("lora_unet__blocks_0_cross_attn_k", "blocks.0.attn2.to_k", WAN_DIFFUSERS),
        ("lora_unet__blocks_0_cross_attn_k_img", "blocks.0.attn2.add_k_proj", WAN_DIFFUSERS),
    ],
)
def test_case_11_two_underscores_after_lora_unet(stem, module, modules):
    """``lora_unet__layers_0_...`` (Z-Image by kohya), ``lora_unet__blocks_0_cross_attn_k`` (Wan-Fun)."""
    lands_on(stem, module, modules)


@pytest.mark.parametrize(
    ("module", "modules"), [("blocks.22.self_attn.k", WAN), ("blocks.22.attn1.to_k", WAN_DIFFUSERS)]
)
def test_case_12_mixed_separators(module, modules):
    """``lora_unet_blocks_22.self_attn.k.lora_down.weight``: underscores to the block's number, dots after it."""
    lands_on("lora_unet_blocks_22.self_attn.k", module, modules)


def test_case_13_an_underscore_left_before_the_ending():
    """``lora_unet_transformer_blocks_10_attn_to_k_.alpha`` (TheLastBen's Flux)."""
    stem = "lora_unet_transformer_blocks_10_attn_to_k_"
    lands_on(stem, "transformer_blocks.10.attn.to_k", {"transformer_blocks.10.attn.to_k": (H, H)})


def test_case_13_on_the_native_model():
    stem = "lora_unet_transformer_blocks_10_attn_to_k_"
    pair = factors(H, H, alpha=1)
    added, keys = composed(model_of({"double_blocks.10.img_attn.qkv": (3 * H, H)}), kohya(stem, pair))
    same(added["double_blocks.10.img_attn.qkv"][H : 2 * H], pair.delta)
    assert where(keys[f"{stem}.alpha"]) == [("double_blocks.10.img_attn.qkv", [H, 2 * H], None, None)]


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "base_model.model.", ""])
@pytest.mark.parametrize("path", ["all_x_embedder.2-1", "all_final_layer.2-1.linear"])
def test_case_33_the_key_of_a_module_dict_stays_whole(path, prefix):
    """``transformer.all_x_embedder.2-1.lora_A.weight``: ``2-1`` is one component (2 pixels, 1 frame)."""
    lands_on(prefix + path, path, Z_IMAGE)
    native = {"all_x_embedder.2-1": "x_embedder", "all_final_layer.2-1.linear": "final_layer.linear"}[path]
    lands_on(prefix + path, native, Z_IMAGE_NATIVE)


NESTED = [
    "base_model.model.",
    "base_model.model.transformer.",
    "base_model.model.transformer.diffusion_model.",
    "transformer.diffusion_model.",
    "transformer.base_model.model.",
    "model.diffusion_model.",
    "lora_transformer_",
    "lycoris_",
]


@pytest.mark.parametrize("prefix", NESTED)
def test_prefixes_nest(prefix):
    path = "layers.0.attention.to_out.0"
    lands_on(prefix + (path.replace(".", "_") if prefix.endswith("_") else path), path, Z_IMAGE)


@pytest.mark.parametrize("level", ["transformer", "model", "unet", "base_model.model"])
def test_a_model_that_has_a_prefix_as_a_level_keeps_it(level):
    """The name as it stands goes before the name without prefixes."""
    modules = {f"{level}.h.0.proj": (H, H), "h.0.proj": (H, H)}
    lands_on(f"{level}.h.0.proj", f"{level}.h.0.proj", modules)
