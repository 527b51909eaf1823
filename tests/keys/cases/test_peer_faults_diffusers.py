"""Where diffusers (0.42) is wrong about a file's names, beside our answer on the same tiny model.

A peer's fault that is gone shows here as a failure: then the assertion about the peer goes, and ours stays.
"""

import pytest
import torch
from file_tensors import Factors, factors, kohya
from loaded_by_diffusers import W, added_by_diffusers, added_by_us, flux2, hunyuan_video, ltx, wan, z_image
from small_models import composed
from tiny_diffusers import flux, sd3

# Peers about each other.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers", "ignore::FutureWarning:peft")


def close(added: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(added, expected.float(), rtol=1e-4, atol=1e-5)


def swapped(matrix):
    return matrix.roll(matrix.shape[0] // 2, 0)


FLUX_KOHYA = {  # stem -> (module, shape); the first is a block's, which diffusers does load
    "lora_unet_double_blocks_0_img_attn_proj": ("transformer_blocks.0.attn.to_out.0", (W, W)),
    "lora_unet_img_in": ("x_embedder", (W, 4)),
    "lora_unet_txt_in": ("context_embedder", (W, 12)),
    "lora_unet_time_in_in_layer": ("time_text_embed.timestep_embedder.linear_1", (W, 256)),
    "lora_unet_vector_in_out_layer": ("time_text_embed.text_embedder.linear_2", (W, W)),
    "lora_unet_guidance_in_in_layer": ("time_text_embed.guidance_embedder.linear_1", (W, 256)),
    "lora_unet_final_layer_linear": ("proj_out", (4, W)),
    "lora_unet_final_layer_adaLN_modulation_1": ("norm_out.linear", (2 * W, W)),
}


def test_kohya_keys_of_flux_outside_the_blocks_are_applied():
    """diffusers converts them without the prefix ``transformer.``, which its loader then drops without a word; of the
    final layer it also leaves the alpha out."""
    pairs = {stem: factors(*shape, alpha=1) for stem, (_, shape) in FLUX_KOHYA.items()}
    tensors = {key: value for stem, pair in pairs.items() for key, value in kohya(stem, pair).items()}
    model = flux(guidance_embeds=True)
    ours = added_by_us(model, tensors)
    assert ours.keys() == {module for module, _ in FLUX_KOHYA.values()}
    for stem, (module, _) in FLUX_KOHYA.items():
        delta = pairs[stem].delta
        close(ours[module], swapped(delta) if module == "norm_out.linear" else delta)
    theirs = added_by_diffusers("FluxPipeline", model, tensors)
    assert theirs.keys() == {"transformer_blocks.0.attn.to_out.0"}
    close(theirs["transformer_blocks.0.attn.to_out.0"], ours["transformer_blocks.0.attn.to_out.0"])


FLUX2_FINAL = "diffusion_model.final_layer.adaLN_modulation.1"


def test_the_final_modulation_of_flux2_has_its_halves_swapped():
    """diffusers' script for checkpoints swaps shift and scale, its converter for LoRA does not."""
    pair = factors(2 * W, W)
    model = flux2()
    ours = added_by_us(model, pair.keyed(FLUX2_FINAL))
    close(ours["norm_out.linear"], swapped(pair.delta))
    theirs = added_by_diffusers("Flux2Pipeline", model, pair.keyed(FLUX2_FINAL))
    close(theirs["norm_out.linear"], pair.delta)


def test_flux2_files_may_have_alphas():
    """diffusers takes an alpha for a key that it does not know."""
    pair = factors(W, W, alpha=1)
    tensors = pair.keyed("diffusion_model.double_blocks.0.img_attn.proj")
    model = flux2()
    close(added_by_us(model, tensors)["transformer_blocks.0.attn.to_out.0"], pair.delta)
    with pytest.raises(ValueError, match="should be empty"):
        added_by_diffusers("Flux2Pipeline", model, tensors)


WAN_OUTSIDE = {
    "head.head": ("proj_out", (16, W)),
    "time_embedding.0": ("condition_embedder.time_embedder.linear_1", (W, 8)),
    "text_embedding.2": ("condition_embedder.text_embedder.linear_2", (W, W)),
    "time_projection.1": ("condition_embedder.time_proj", (6 * W, W)),
}


@pytest.mark.parametrize("native", WAN_OUTSIDE)
def test_wan_files_may_have_alphas_outside_the_blocks(native):
    """diffusers knows the alphas of Wan's blocks only."""
    module, shape = WAN_OUTSIDE[native]
    block, pair = factors(W, W, alpha=1), factors(*shape, alpha=3)
    tensors = block.keyed("diffusion_model.blocks.0.self_attn.q") | pair.keyed(f"diffusion_model.{native}")
    model = wan()
    ours = added_by_us(model, tensors)
    close(ours[module], pair.delta)
    close(ours["blocks.0.attn1.to_q"], block.delta)
    with pytest.raises(ValueError, match="should be empty"):
        added_by_diffusers("WanPipeline", model, tensors)


def test_wan_by_musubi_need_not_have_every_projection():
    """diffusers looks for k when q is there."""
    pair = factors(W, W, alpha=1)
    tensors = kohya("lora_unet_blocks_0_self_attn_q", pair)
    model = wan()
    close(added_by_us(model, tensors)["blocks.0.attn1.to_q"], pair.delta)
    with pytest.raises(KeyError):
        added_by_diffusers("WanPipeline", model, tensors)


def test_kohya_keys_of_z_image_outside_the_layers_are_applied():
    """diffusers splits ``x_embedder`` and ``final_layer_linear`` at their own underscores."""
    layer, embedder, last = factors(W, W, alpha=1), factors(W, 16, alpha=1), factors(16, W, alpha=1)
    tensors = (
        kohya("lora_unet_layers_0_attention_to_q", layer)
        | kohya("lora_unet_x_embedder", embedder)
        | kohya("lora_unet_final_layer_linear", last)
    )
    model = z_image()
    ours = added_by_us(model, tensors)
    close(ours["all_x_embedder.2-1"], embedder.delta)
    close(ours["all_final_layer.2-1.linear"], last.delta)
    theirs = added_by_diffusers("ZImagePipeline", model, tensors)
    assert theirs.keys() == {"layers.0.attention.to_q"}


def test_sd3_by_kohya_is_applied():
    """diffusers knows its own names of SD3 only."""
    pair = factors(3 * W, W, alpha=1)
    tensors = kohya("lora_unet_joint_blocks_0_x_block_attn_qkv", pair)
    model = sd3()
    ours = added_by_us(model, tensors)
    close(torch.cat([ours[f"transformer_blocks.0.attn.to_{x}"] for x in "qkv"]), pair.delta)
    assert added_by_diffusers("StableDiffusion3Pipeline", model, tensors) == {}


def test_ltx_names_of_its_own_are_applied():
    """diffusers renames LTX-2's ``patchify_proj`` and ``adaln_single``, not LTX-Video's."""
    block, patch, modulation = factors(W, W), factors(W, 4), factors(6 * W, W)
    tensors = (
        block.keyed("diffusion_model.transformer_blocks.0.attn1.to_q")
        | patch.keyed("diffusion_model.patchify_proj")
        | modulation.keyed("diffusion_model.adaln_single.linear")
    )
    model = ltx()
    ours = added_by_us(model, tensors)
    close(ours["proj_in"], patch.delta)
    close(ours["time_embed.linear"], modulation.delta)
    assert added_by_diffusers("LTXPipeline", model, tensors).keys() == {"transformer_blocks.0.attn1.to_q"}


def test_hunyuan_video_by_kohya_is_applied():
    """diffusers cuts every tensor of a fused module into three, alpha too, and raises."""
    pair = factors(3 * W, W, alpha=1)
    tensors = kohya("lora_unet_double_blocks_0_img_attn_qkv", pair)
    model = hunyuan_video()
    ours = added_by_us(model, tensors)
    close(torch.cat([ours[f"transformer_blocks.0.attn.to_{x}"] for x in "qkv"]), pair.delta)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        added_by_diffusers("HunyuanVideoPipeline", model, tensors)


def test_the_text_refiner_of_hunyuan_video_shares_its_down_factor():
    """diffusers cuts that one into three as well: of a rank-3 adapter q, k and v each get one row of it."""
    pair = factors(3 * W, W, rank=3)
    refiner = "txt_in.individual_token_refiner.blocks.0.self_attn"
    model = hunyuan_video()
    for spelling in ("_qkv", ".qkv"):
        ours = added_by_us(model, pair.keyed(f"diffusion_model.{refiner}{spelling}"))
        split = [ours[f"context_embedder.token_refiner.refiner_blocks.0.attn.to_{x}"] for x in "qkv"]
        close(torch.cat(split), pair.delta)
    from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers

    converted = _convert_hunyuan_video_lora_to_diffusers(pair.keyed(f"{refiner}_qkv"))
    down = [value for key, value in converted.items() if key.endswith("to_q.lora_A.weight")]
    assert [value.shape for value in down] == [(1, W)]


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
@pytest.mark.parametrize("stem", ["lycoris_transformer_blocks_0_attn_to_q", "lora_unet_double_blocks_0_img_attn_proj"])
def test_loha_and_lokr_are_fused_where_diffusers_drops_them(stem, algorithm):
    shapes = {
        "loha": {"hada_w1_a": (W, 2), "hada_w1_b": (2, W), "hada_w2_a": (W, 2), "hada_w2_b": (2, W)},
        "lokr": {"lokr_w1": (2, 2), "lokr_w2": (W // 2, W // 2)},
    }[algorithm]
    tensors = {f"{stem}.{name}": torch.randn(shape) for name, shape in shapes.items()}
    model = flux()
    assert added_by_diffusers("FluxPipeline", model, tensors) == {}
    first, second, *others = (value.double() for value in tensors.values())
    delta = (first @ second) * (others[0] @ others[1]) if others else torch.kron(first, second)
    added, keys = composed(model, tensors)
    (changed,) = [value for value in added.values() if value.any()]
    close(changed, delta)
    for verdict in keys.values():
        assert [target["module"].split(".attn.")[0] for target in verdict["targets"]] == ["transformer_blocks.0"]


def test_what_diffusers_and_we_agree_on():
    """The helper that shows the faults shows agreement where there is none: q, k and v of a BFL file, with alpha."""
    pair = factors(3 * W, W, rank=3, alpha=1)
    tensors = kohya("lora_unet_double_blocks_0_img_attn_qkv", pair)
    model = flux()
    ours, theirs = added_by_us(model, tensors), added_by_diffusers("FluxPipeline", model, tensors)
    assert ours.keys() == theirs.keys()
    for module, value in ours.items():
        close(theirs[module], value)


def test_a_block_sparse_file_that_diffusers_takes_apart():
    """It finds the blocks of a converted file and gives each part its own rank; the sum is the same."""
    parts = [factors(W, W, rank=2) for _ in "qkv"]
    up, down = torch.block_diag(*(part.up for part in parts)), torch.cat([part.down for part in parts])
    tensors = kohya("lora_unet_double_blocks_0_img_attn_qkv", Factors(down, up))
    model = flux()
    ours, theirs = added_by_us(model, tensors), added_by_diffusers("FluxPipeline", model, tensors)
    assert ours.keys() == theirs.keys()
    for part, name in zip(parts, "qkv", strict=True):
        close(ours[f"transformer_blocks.0.attn.to_{name}"], part.delta)
        close(theirs[f"transformer_blocks.0.attn.to_{name}"], part.delta)
