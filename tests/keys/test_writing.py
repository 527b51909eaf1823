"""What files of a dialect call a module, family by family; and what cannot be said."""

import pytest
import torch
from stand_ins import stand_in

import lora_mmap
from lora_mmap.errors import ArgumentError
from lora_mmap.families import key_tables
from lora_mmap.families.dialects import DIALECTS
from lora_mmap.families.writing import spell

BLOCK = "transformer_blocks.3."
Q = "encoder.layers.0.self_attn.q_proj"


def up_keys(*arguments, **more):
    return [name.up for name in spell(*arguments, **more)]


@pytest.mark.parametrize(
    ("path", "family", "dialect", "expected"),
    [
        (BLOCK + "attn.to_k", "flux1", "kohya", "lora_unet_double_blocks_3_img_attn_qkv.lora_up.weight"),
        (BLOCK + "attn.to_k", "flux1", "diffusers", "transformer.transformer_blocks.3.attn.to_k.lora_B.weight"),
        (BLOCK + "attn.to_k", "flux1", "peft", "base_model.model.transformer_blocks.3.attn.to_k.lora_B.weight"),
        (BLOCK + "attn.to_k", "flux1", "comfyui", "diffusion_model.double_blocks.3.img_attn.qkv.lora_B.weight"),
        (BLOCK + "attn.to_k", "qwen_image", "kohya", "lora_unet_transformer_blocks_3_attn_to_k.lora_up.weight"),
        (BLOCK + "attn.to_k", "qwen_image", "comfyui", "diffusion_model.transformer_blocks.3.attn.to_k.lora_B.weight"),
        (
            "layers.0.attention.to_out.0",
            "z_image",
            "kohya",
            "lora_unet_layers_0_attention_to_out_0.lora_up.weight",
        ),
        ("layers.0.attn.to_out.0", "lumina2", "kohya", "lora_unet_layers_0_attention_out.lora_up.weight"),
        ("blocks.0.attn1.to_q", "wan", "kohya", "lora_unet_blocks_0_self_attn_q.lora_up.weight"),
        ("blocks.0.self_attn.q", "wan", "diffusers", "transformer.blocks.0.attn1.to_q.lora_B.weight"),
        (BLOCK + "ff.net.2", "hunyuan_video", "kohya", "lora_unet_double_blocks_3_img_mlp_fc2.lora_up.weight"),
        (BLOCK + "ff.net.2", "hunyuan_video", "comfyui", "diffusion_model.double_blocks.3.img_mlp.2.lora_B.weight"),
        (BLOCK + "attn.to_k", "hunyuan_video15", "kohya", "lora_unet_double_blocks_3_img_attn_k.lora_up.weight"),
        (BLOCK + "attn.to_k", "hunyuan_image", "kohya", "lora_unet_double_blocks_3_img_attn_qkv.lora_up.weight"),
        (
            BLOCK + "attn.to_k",
            "sd3",
            "kohya",
            "lora_unet_joint_blocks_3_x_block_attn_qkv.lora_up.weight",
        ),
        (
            "down_blocks.1.resnets.0.conv1",
            "sd15",
            "kohya",
            "lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight",
        ),
        (
            "input_blocks.4.0.in_layers.2",
            "sd2",
            "kohya",
            "lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight",
        ),
        ("down_blocks.1.resnets.0.conv1", "sdxl", "kohya", "lora_unet_input_blocks_4_0_in_layers_2.lora_up.weight"),
        ("down_blocks.1.resnets.0.conv1", "sdxl", "diffusers", "unet.down_blocks.1.resnets.0.conv1.lora_B.weight"),
        ("up_blocks.0.upsamplers.0.conv", "sdxl", "kohya", "lora_unet_output_blocks_2_2_conv.lora_up.weight"),
        ("up_blocks.0.upsamplers.0.conv", "sdxl_refiner", "kohya", "lora_unet_output_blocks_2_1_conv.lora_up.weight"),
        (
            "llm_adapter.blocks.0.mlp.0",
            "anima",
            "diffusers",
            "text_conditioner.blocks.0.mlp.0.lora_B.weight",
        ),
        (
            "video_embeddings_connector.transformer_1d_blocks.0.attn1.to_q",
            "ltx2",
            "diffusers",
            "connectors.video_connector.transformer_blocks.0.attn1.to_q.lora_B.weight",
        ),
    ],
)
def test_denoisers(path, family, dialect, expected):
    assert up_keys(path, dialect, family) == [expected]


@pytest.mark.parametrize(
    ("family", "component", "path", "dialect", "expected"),
    [
        ("sd15", "text_encoder", Q, "kohya", "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"),
        ("sdxl", "text_encoder", Q, "kohya", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"),
        ("sdxl", "text_encoder_2", Q, "kohya", "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight"),
        ("sdxl", "text_encoder_2", "text_projection", "kohya", "lora_te2_text_projection.lora_up.weight"),
        ("sdxl", "text_encoder_2", Q, "diffusers", f"text_encoder_2.text_model.{Q}.lora_B.weight"),
        ("sdxl", "text_encoder_2", Q, "comfyui", f"text_encoders.clip_g.transformer.text_model.{Q}.lora_B.weight"),
        ("flux1", "text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q", "kohya", None),
        (
            "flux1",
            "text_encoder_2",
            "encoder.block.0.layer.0.SelfAttention.q",
            "comfyui",
            "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight",
        ),
        ("lumina2", "text_encoder", "layers.0.mlp.up_proj", "kohya", "lora_te_layers_0_mlp_up_proj.lora_up.weight"),
        (
            "lumina2",
            "text_encoder",
            "model.layers.0.mlp.up_proj",
            "comfyui",
            "text_encoders.gemma2_2b.transformer.model.layers.0.mlp.up_proj.lora_B.weight",
        ),
        (
            "language_model",
            "text_encoder",
            "model.layers.0.mlp.up_proj",
            "peft",
            "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
        ),
    ],
)
def test_text_encoders(family, component, path, dialect, expected):
    """T5 is kohya's third text encoder, also where diffusers has two."""
    expected = expected or "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight"
    assert up_keys(path, dialect, family, component) == [expected]


# A module of each text encoder, as transformers' models of today have it.
OF_AN_ENCODER = {
    "clip": "text_model.encoder.layers.0.mlp.fc1",
    "t5": "encoder.block.0.layer.1.DenseReluDense.wo",
    "language_model": "model.layers.0.mlp.up_proj",
}
PIPELINES = [
    (family.name, component, dialect)
    for family in key_tables().families.values()
    for component in family.text_encoders or ()
    for dialect in DIALECTS
]


@pytest.mark.parametrize(("family", "component", "dialect"), PIPELINES)
def test_text_encoders_read_back(family, component, dialect):
    """On the encoder by itself, also when it is said which one it is (ComfyUI says CLIP-L, not the number)."""
    encoder = key_tables().families[family].text_encoders[component].family
    path = OF_AN_ENCODER[encoder]
    (name,) = spell(path, dialect, family, component)
    tensors = {name.up: torch.zeros(8, 2), name.down: torch.zeros(2, 8)}
    model = stand_in({f"{path}.weight": (8, 8)})
    for said in (None, component) if dialect != "comfyui" else (None,):
        (target,) = lora_mmap.check(model, tensors, component=said).to_dict()["keys"][name.up]["targets"]
        assert target["module"] == path


def test_what_a_file_has_apart():
    """A fused module is written in parts, each with its rows."""
    names = spell("double_blocks.0.img_attn.qkv", "diffusers", "flux1")
    assert [name.path.rpartition(".")[2] for name in names] == ["to_q", "to_k", "to_v"]
    assert [name.placement.scaled(8, 24) for name in names] == [((0, 8 * part, 8),) for part in range(3)]


def test_what_a_file_has_together():
    """A part is written as its section."""
    (name,) = spell("single_transformer_blocks.0.proj_mlp", "kohya", "flux1")
    assert name.path == "single_blocks.0.linear1"
    assert name.placement.scaled(7 * 8, 4 * 8) == ((3 * 8, 0, 4 * 8),)


def test_swapped_halves():
    (name,) = spell("norm_out.linear", "kohya", "flux1")
    assert name.placement.scaled(16, 16) == ((0, 8, 8), (8, 0, 8))


def test_flattened_paths_are_understood():
    for path in ("single_blocks.0.linear1", "transformer_blocks.0.attn.to_out.0", "norm_out.linear"):
        assert spell(path.replace(".", "_"), "diffusers", "flux1") == spell(path, "diffusers", "flux1")


def test_shapes_tell_what_one_name_stands_for():
    """The text's modulation of Stable Diffusion 3: six vectors, in the last block two, in another order."""
    path = BLOCK + "norm1_context.linear"
    with pytest.raises(ArgumentError, match=r"Stable Diffusion 3.*in several ways.*say which by shape="):
        spell(path, "kohya", "sd3")
    (six,) = spell(path, "kohya", "sd3", shape=(6 * 8, 8))
    (two,) = spell(path, "kohya", "sd3", shape=(2 * 8, 8))
    assert (six.up, six.placement.is_whole) == (two.up, True)
    assert two.placement.layout == "swapped halves"
    with pytest.raises(ArgumentError, match=r"shape \[24, 8\]"):
        spell(path, "kohya", "sd3", shape=(3 * 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("img_in", "onnx", "flux1"), "dialect is 'onnx', expected one of 'kohya'"),
        (("img_in", "kohya", "flux"), "family is 'flux', expected one of 'flux1'"),
        (("img_in", "kohya", "flux1", "text_encoder_3"), "component of Flux.1 is 'text_encoder_3', expected one of"),
        (("nowhere", "kohya", "flux1"), "Flux.1 has no module 'nowhere'"),
        (("down_blocks.0.resnets.5.conv1", "kohya", "sdxl"), "has no index"),
        ((Q, "comfyui", "clip", "text_encoder"), "expected that family, not 'clip'"),
    ],
)
def test_what_cannot_be_written(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        spell(*arguments)
