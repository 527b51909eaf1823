"""Which text encoder a key is for: cases 18, 19 and 20. The number in a prefix does not say which model it is; the
names after it and the model at hand do."""

import pytest
from file_tensors import factors, kohya
from small_models import H, composed, model_of, same, told, where

import lora_mmap

CLIP_LAYER = "encoder.layers.0.self_attn."
CLIP_L = {f"text_model.{CLIP_LAYER}{x}_proj": (H, H) for x in "qkv"}
CLIP_L_5 = {f"{CLIP_LAYER}{x}_proj": (H, H) for x in "qkv"}  # transformers >= 5
CLIP_G = {f"text_model.{CLIP_LAYER}{x}_proj": (2 * H, 2 * H) for x in "qkv"} | {"text_projection": (2 * H, 2 * H)}
T5 = {f"encoder.block.0.layer.0.SelfAttention.{x}": (H, H) for x in "qkvo"}


@pytest.mark.parametrize("stem", ["lora_te2_{}", "lora_te3_{}"])
def test_case_18_te2_of_onetrainer_and_te3_of_kohya_are_t5(stem):
    """``lora_te2_encoder_block_0...`` (OneTrainer's Flux.1) and ``lora_te3_...`` (kohya's): T5."""
    pair = factors(H, H, alpha=1)
    stem = stem.format("encoder_block_0_layer_0_SelfAttention_k")
    added, keys = composed(model_of(T5), kohya(stem, pair))
    same(added["encoder.block.0.layer.0.SelfAttention.k"], pair.delta)
    assert where(keys[f"{stem}.alpha"]) == [("encoder.block.0.layer.0.SelfAttention.k", None, None, None)]


def test_case_18_te2_text_model_is_clip_g():
    """``lora_te2_text_model_...``: SDXL's second text encoder."""
    pair = factors(2 * H, 2 * H, alpha=1)
    stem = "lora_te2_text_model_encoder_layers_0_self_attn_k_proj"
    added, _ = composed(model_of(CLIP_G), kohya(stem, pair))
    same(added[f"text_model.{CLIP_LAYER}k_proj"], pair.delta)


@pytest.mark.parametrize("stem", ["lora_te2_{}", "lora_te3_{}"])
def test_case_18_the_other_text_encoder_has_no_such_name(stem):
    """T5's keys on CLIP are absent, not unknown: the name is T5's."""
    stem = stem.format("encoder_block_0_layer_0_SelfAttention_k")
    verdict = told(model_of(CLIP_G), kohya(stem, factors(H, H)))[f"{stem}.lora_up.weight"]
    assert (verdict["outcome"], verdict["targets"]) == ("absent", [])
    assert "T5" in verdict["reason"]


def test_case_18_flux_in_one_file():
    """kohya's Flux.1: te1 is CLIP-L and te3 is T5, each on its own model, the other's keys absent."""
    clip, t5 = factors(H, H, alpha=2), factors(H, H, alpha=1)
    stems = "lora_te1_text_model_encoder_layers_0_self_attn_k_proj", "lora_te3_encoder_block_0_layer_0_SelfAttention_k"
    tensors = kohya(stems[0], clip) | kohya(stems[1], t5)
    for modules, module, pair, (own, other) in (
        (CLIP_L, f"text_model.{CLIP_LAYER}k_proj", clip, stems),
        (T5, "encoder.block.0.layer.0.SelfAttention.k", t5, stems[::-1]),
    ):
        model = model_of(modules)
        before = model.get_submodule(module).weight.clone()
        keys = lora_mmap.compose(model, [(tensors, 1.0)]).to_dict()["keys"]
        same(model.get_submodule(module).weight - before, pair.delta)
        assert keys[f"{own}.lora_up.weight"]["outcome"] == "applied"
        assert keys[f"{other}.lora_up.weight"]["outcome"] == "absent"


@pytest.mark.parametrize("level", ["", "text_model_"])
@pytest.mark.parametrize("modules", [CLIP_L, CLIP_L_5], ids=["text_model", "transformers 5"])
@pytest.mark.parametrize("prefix", ["lora_te1_", "lora_te_"])
def test_case_19_with_or_without_text_model(prefix, modules, level):
    """``lora_te1_encoder_layers_0_self_attn_k_proj``: trained under transformers >= 5, whose CLIPTextModel has no level
    ``text_model``; either file fits either model."""
    pair = factors(H, H, alpha=3)
    stem = f"{prefix}{level}encoder_layers_0_self_attn_k_proj"
    added, keys = composed(model_of(modules), kohya(stem, pair))
    same(added[list(modules)[1]], pair.delta)
    assert where(keys[f"{stem}.lora_up.weight"]) == [(list(modules)[1], None, None, None)]


def test_case_19_beside_a_second_encoder_that_kept_the_level():
    """One file, SDXL: te1 without ``text_model``, te2 with it. On CLIP-G only te2 is applied."""
    te1, te2 = factors(H, H), factors(2 * H, 2 * H)
    stems = (
        "lora_te1_encoder_layers_0_self_attn_k_proj",
        "lora_te2_text_model_encoder_layers_0_self_attn_k_proj",
    )
    tensors = kohya(stems[0], te1) | kohya(stems[1], te2)
    model = model_of(CLIP_G)
    before = model.get_submodule(f"text_model.{CLIP_LAYER}k_proj").weight.clone()
    keys = lora_mmap.compose(model, [(tensors, 1.0)]).to_dict()["keys"]
    same(model.get_submodule(f"text_model.{CLIP_LAYER}k_proj").weight - before, te2.delta)
    assert [keys[f"{stem}.lora_up.weight"]["outcome"] for stem in stems] == ["absent", "applied"]


@pytest.mark.parametrize(
    "stem", ["lora_te2_text_projection", "text_encoder_2.text_projection", "text_encoders.clip_g.transformer.{}"]
)
def test_case_20_the_text_projection_of_clip_g(stem):
    """``lora_te2_text_projection.lora_up.weight`` (OneTrainer)."""
    stem = stem.format("text_projection")
    pair = factors(2 * H, 2 * H, alpha=1)
    added, keys = composed(model_of(CLIP_G), kohya(stem, pair))
    same(added["text_projection"], pair.delta)
    assert where(keys[f"{stem}.lora_up.weight"]) == [("text_projection", None, None, None)]
