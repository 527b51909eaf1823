"""From a file's names to a model's modules: the order of attempts, ambiguity, liveness, fused projections."""

import pytest

from lora_mmap import _C
from lora_mmap.families import key_tables

FOUND, ABSENT, SEVERAL = "found", "absent", "several"


def resolve(stem: str, modules: list[str], alive: list[bool] | None = None) -> tuple[str, list[str]]:
    names = _C.ModelNames(modules, alive or [True] * len(modules))
    (found,) = key_tables().grammar.classify([stem + ".lora_up.weight"]).resolve(names)
    if isinstance(found, int):
        return FOUND, [modules[found]]
    _, several, choices = found
    if several:
        return SEVERAL, [modules[hit] for hit in several]
    ways = list(dict.fromkeys(hits for _, _, hits in choices))  # families may say the same of a name
    if len(ways) > 1:
        return SEVERAL, [modules[hit] for hits in ways for hit in hits]
    return (FOUND, [modules[hit] for hit in ways[0]]) if ways else (ABSENT, [])


@pytest.mark.parametrize(
    "stem",
    [
        "layers.0.mlp.fc_1",
        "transformer.layers.0.mlp.fc_1",
        "diffusion_model.layers.0.mlp.fc_1",
        "model.diffusion_model.layers.0.mlp.fc_1",
        "unet.layers.0.mlp.fc_1",
        "base_model.model.layers.0.mlp.fc_1",
        "base_model.model.transformer.diffusion_model.layers.0.mlp.fc_1",
        "lora_unet_layers_0_mlp_fc_1",
        "lora_unet__layers_0_mlp_fc_1",
        "lora_unet_layers_0.mlp.fc_1",
        "lora_transformer_layers_0_mlp_fc_1",
        "lycoris_layers_0_mlp_fc_1",
        "lora_te1_text_model_layers_0_mlp_fc_1",
        "layers_0_mlp_fc_1",
    ],
)
def test_prefixes_and_flattened_names(stem):
    assert resolve(stem, ["layers.0.mlp.fc_1", "layers.0.mlp.fc_2"]) == (FOUND, ["layers.0.mlp.fc_1"])


def test_a_model_that_has_the_level_keeps_it():
    modules = ["transformer.h.0.proj", "h.0.proj"]
    assert resolve("transformer.h.0.proj", modules) == (FOUND, ["transformer.h.0.proj"])
    assert resolve("base_model.model.transformer.h.0.proj", modules) == (FOUND, ["transformer.h.0.proj"])
    assert resolve("unet.h.0.proj", modules) == (FOUND, ["h.0.proj"])


def test_names_that_flatten_alike_are_never_guessed():
    modules = ["a.b_c", "a_b.c"]
    assert resolve("lora_unet_a_b_c", modules) == (SEVERAL, modules)
    assert resolve("unet.a.b_c", modules) == (FOUND, ["a.b_c"])


def test_absent():
    assert resolve("unet.nowhere", ["somewhere"]) == (ABSENT, [])


ATTENTION = "transformer_blocks.7.attn."


@pytest.mark.parametrize("spelling", ["transformer.{}", "{}", "lora_unet_{}", "diffusion_model.{}"])
@pytest.mark.parametrize(
    ("part", "whole"),
    [("to_q", "to_qkv"), ("to_v", "to_qkv"), ("add_k_proj", "add_qkv_proj"), ("add_q_proj", "to_added_qkv")],
)
def test_split_projections_in_a_fused_model(spelling, part, whole):
    path = ATTENTION + part
    stem = spelling.format(path.replace(".", "_") if spelling.startswith("lora_unet_") else path)
    assert resolve(stem, [ATTENTION + whole]) == (FOUND, [ATTENTION + whole])


def test_a_fused_file_in_a_split_model_needs_all_parts():
    parts = [ATTENTION + part for part in ("to_q", "to_k", "to_v")]
    assert resolve(ATTENTION + "to_qkv", parts) == (FOUND, parts)
    assert resolve(ATTENTION + "to_qkv", parts[:2]) == (ABSENT, [])


def test_what_takes_no_part_in_the_forward_is_passed_over():
    modules = [ATTENTION + "to_q", ATTENTION + "to_qkv"]
    assert resolve(ATTENTION + "to_q", modules) == (FOUND, [ATTENTION + "to_q"])
    assert resolve(ATTENTION + "to_q", modules, [False, True]) == (FOUND, [ATTENTION + "to_qkv"])


def test_a_name_of_its_own_goes_before_another_ones_alias():
    names = _C.ModelNames(["model.a.b", "a.b"], [True, True], [(0, "a.b")])
    (found,) = key_tables().grammar.classify(["a.b.lora_up.weight"]).resolve(names)
    assert found == 1


def test_an_alias_of_two_modules_is_never_guessed():
    names = _C.ModelNames(["one.a.b", "two.a.b"], [True, True], [(0, "a.b"), (1, "a.b")])
    for stem in ("a.b", "lora_unet_a_b"):
        (found,) = key_tables().grammar.classify([stem + ".lora_up.weight"]).resolve(names)
        assert found[1] == (0, 1)
