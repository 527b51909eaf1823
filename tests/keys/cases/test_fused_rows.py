"""Where a file and a model disagree on which output features share a matrix: cases 1, 2, 7, 10, 17 and 29.

Every part of a fused matrix is scaled by its own alpha over its own rank. Peers that stack the parts into one pair of
rank 3r and keep one part's alpha apply q, k and v at a third of their strength.
"""

import pytest
import torch
from file_tensors import Factors, factors, kohya, kohya_parts
from small_models import H, composed, model_of, same, told, where

QKV = {"double_blocks.0.img_attn.qkv": (3 * H, H)}
SPLIT = {f"transformer_blocks.0.attn.to_{x}": (H, H) for x in "qkv"}
SINGLE = {
    **{f"single_transformer_blocks.0.attn.to_{x}": (H, H) for x in "qkv"},
    "single_transformer_blocks.0.proj_mlp": (4 * H, H),
}


@pytest.mark.parametrize("stem", ["lora_unet_single_blocks_0_linear1", "diffusion_model.single_blocks.0.linear1"])
def test_case_01_linear1_is_q_k_v_and_mlp(stem):
    """``lora_unet_single_blocks_0_linear1.lora_up.weight`` on a diffusers Flux.1: q, k, v and 4 widths of MLP; one down
    factor for all of them, alpha and rank as they are."""
    pair = factors(7 * H, H, rank=4, alpha=2)
    added, keys = composed(model_of(SINGLE), kohya(stem, pair))
    same(torch.cat([added[module] for module in SINGLE]), pair.delta)
    sections = [([0, H]), ([H, 2 * H]), ([2 * H, 3 * H]), ([3 * H, 7 * H])]
    for role, ending in (("down", "lora_down.weight"), ("up", "lora_up.weight"), ("alpha", "alpha")):
        targets = keys[f"{stem}.{ending}"]["targets"]
        assert [target["module"] for target in targets] == list(SINGLE)
        assert [target["factor_rows"] for target in targets] == sections
        assert {target["role"] for target in targets} == {role}


def test_case_01_linear1_on_the_model_that_has_it():
    pair = factors(7 * H, H, alpha=1)
    added, keys = composed(
        model_of({"single_blocks.0.linear1": (7 * H, H)}), kohya("lora_unet_single_blocks_0_linear1", pair)
    )
    same(added["single_blocks.0.linear1"], pair.delta)
    assert where(keys["lora_unet_single_blocks_0_linear1.alpha"]) == [("single_blocks.0.linear1", None, None, None)]


USO_QKV = "single_blocks.0.processor.qkv_lora"


def test_case_02_uso_qkv_lora_is_the_first_three_widths_of_linear1():
    pair = factors(3 * H, H)
    tensors = {f"{USO_QKV}.down.weight": pair.down, f"{USO_QKV}.up.weight": pair.up}
    added, keys = composed(model_of({"single_blocks.0.linear1": (7 * H, H)}), tensors)
    same(added["single_blocks.0.linear1"], torch.cat([pair.delta, torch.zeros(4 * H, H)]))
    assert where(keys[f"{USO_QKV}.up.weight"]) == [("single_blocks.0.linear1", [0, 3 * H], None, None)]


def test_case_02_uso_qkv_lora_on_the_split_model_leaves_the_mlp_alone():
    pair = factors(3 * H, H)
    tensors = {f"{USO_QKV}.down.weight": pair.down, f"{USO_QKV}.up.weight": pair.up}
    added, _ = composed(model_of(SINGLE), tensors)
    same(torch.cat([added[f"single_transformer_blocks.0.attn.to_{x}"] for x in "qkv"]), pair.delta)
    assert not added["single_transformer_blocks.0.proj_mlp"].any()


# (the model's fused module, how files write a part's stem, the parts in their order)
FUSED = {
    "flux1 native": ("double_blocks.0.img_attn.qkv", "transformer.transformer_blocks.0.attn.to_{}", "qkv"),
    "flux1 native text": (
        "double_blocks.0.txt_attn.qkv",
        "lora_transformer_transformer_blocks_0_attn_add_{}_proj",
        "qkv",
    ),
    "flux1 nunchaku": ("transformer_blocks.0.qkv_proj", "transformer.transformer_blocks.0.attn.to_{}", "qkv"),
    "flux1 nunchaku 2": (
        "transformer_blocks.0.attn.add_qkv_proj",
        "transformer.transformer_blocks.0.attn.add_{}_proj",
        "qkv",
    ),
    "flux2 native": ("double_blocks.0.img_attn.qkv", "sformer_blocks.0.attn.to_{}", "qkv"),
    "qwen nunchaku": ("transformer_blocks.0.attn.to_qkv", "lora_unet_transformer_blocks_0_attn_to_{}", "qkv"),
    "qwen nunchaku text": (
        "transformer_blocks.0.attn.add_qkv_proj",
        "diffusion_model.transformer_blocks.0.attn.add_{}_proj",
        "qkv",
    ),
    "z-image native": ("layers.0.attention.qkv", "diffusion_model.layers.0.attention.to_{}", "qkv"),
    "z-image nunchaku": ("layers.0.attention.to_qkv", "lora_unet_layers_0_attention_to_{}", "qkv"),
    "z-image refiner": ("noise_refiner.1.attention.qkv", "transformer.noise_refiner.1.attention.to_{}", "qkv"),
    "sd3 native": ("joint_blocks.0.x_block.attn.qkv", "transformer.transformer_blocks.0.attn.to_{}", "qkv"),
    "hunyuan video": ("double_blocks.0.img_attn_qkv", "transformer.transformer_blocks.0.attn.to_{}", "qkv"),
    "pixart": ("blocks.0.attn.qkv", "base_model.model.transformer_blocks.0.attn1.to_{}", "qkv"),
    "pixart cross": ("blocks.0.cross_attn.kv_linear", "base_model.model.transformer_blocks.0.attn2.to_{}", "kv"),
    "clip": ("transformer.resblocks.0.attn.in_proj", "text_encoder.encoder.layers.0.self_attn.{}_proj", "qkv"),
    "llama": ("model.layers.0.self_attn.qkv_proj", "base_model.model.model.layers.0.self_attn.{}_proj", "qkv"),
}


@pytest.mark.parametrize("case", FUSED)
def test_split_parts_with_alpha_are_applied_at_full_strength(case):
    """Equal ranks and alphas, as most trainers write them: every row gets alpha / rank, not alpha / 3 rank."""
    module, stem, parts = FUSED[case]
    pairs = {part: factors(H, H, rank=4, alpha=4) for part in parts}
    added, keys = composed(model_of({module: (len(parts) * H, H)}), kohya_parts(stem, pairs))
    same(added[module], torch.cat([pair.up.double() @ pair.down.double() for pair in pairs.values()]))
    for place, part in enumerate(parts):
        rows = [place * H, (place + 1) * H]
        for ending in ("lora_down.weight", "lora_up.weight", "alpha"):
            assert where(keys[f"{stem.format(part)}.{ending}"]) == [(module, rows, None, None)]


@pytest.mark.parametrize("case", FUSED)
def test_parts_of_unequal_ranks_and_alphas_keep_their_own(case):
    """Each part's own alpha over its own rank; one of them has none written, which is scale 1."""
    module, stem, parts = FUSED[case]
    own = [factors(H, H, rank=1, alpha=4), factors(H, H, rank=5, alpha=0.5), factors(H, H, rank=3)]
    pairs = dict(zip(parts, own, strict=False))
    added, _ = composed(model_of({module: (len(parts) * H, H)}), kohya_parts(stem, pairs), strength=0.5)
    same(added[module], torch.cat([0.5 * pair.delta for pair in pairs.values()]))


@pytest.mark.parametrize("case", [name for name, (_, _, parts) in FUSED.items() if parts == "qkv"])
def test_only_q_and_v_trained_leaves_k_as_it_was(case):
    """The commonest choice of PEFT's target modules: q and v."""
    module, stem, _ = FUSED[case]
    q, v = factors(H, H, rank=2, alpha=1), factors(H, H, rank=4, alpha=8)
    added, _ = composed(model_of({module: (3 * H, H)}), kohya_parts(stem, {"q": q, "v": v}))
    same(added[module], torch.cat([q.delta, torch.zeros(H, H), v.delta]))


@pytest.mark.parametrize("module", ["layers.0.feed_forward.net.0.proj", "layers.0.feed_forward.w13"])
@pytest.mark.parametrize("stem", ["diffusion_model.layers.0.feed_forward.{}", "lora_unet_layers_0_feed_forward_{}"])
def test_case_07_w1_is_the_second_half_and_w3_the_first(stem, module):
    """Z-Image's gated MLP in Nunchaku (``net.0.proj``) and in ComfyUI's Nunchaku (``w13``): rows [w3 ; w1], each half
    with its own alpha and rank."""
    w1, w3 = factors(2 * H, H, rank=2, alpha=6), factors(2 * H, H, rank=3, alpha=1)
    added, keys = composed(model_of({module: (4 * H, H)}), kohya_parts(stem, {"w1": w1, "w3": w3}))
    same(added[module], torch.cat([w3.delta, w1.delta]))
    assert where(keys[f"{stem.format('w1')}.lora_up.weight"]) == [(module, [2 * H, 4 * H], None, None)]
    assert where(keys[f"{stem.format('w3')}.lora_up.weight"]) == [(module, [0, 2 * H], None, None)]


def test_case_07_refiners_keep_split_attention_beside_a_fused_mlp():
    """Nunchaku's checkpoints may leave the refiners unquantised, with diffusers' q, k and v, and convert their MLP all
    the same."""
    stack = "noise_refiner.0."
    model = model_of({f"{stack}feed_forward.net.0.proj": (4 * H, H), f"{stack}attention.to_q": (H, H)})
    w1, q = factors(2 * H, H, alpha=1), factors(H, H, alpha=1)
    stem = f"diffusion_model.{stack}"
    added, _ = composed(model, kohya(f"{stem}feed_forward.w1", w1) | kohya(f"{stem}attention.to_q", q))
    same(added[f"{stack}feed_forward.net.0.proj"], torch.cat([torch.zeros(2 * H, H), w1.delta]))
    same(added[f"{stack}attention.to_q"], q.delta)


def test_case_07_w1_alone():
    w1 = factors(2 * H, H, alpha=1)
    added, _ = composed(
        model_of({"layers.0.feed_forward.w13": (4 * H, H)}), kohya("diffusion_model.layers.0.feed_forward.w1", w1)
    )
    same(added["layers.0.feed_forward.w13"], torch.cat([torch.zeros(2 * H, H), w1.delta]))


def block_sparse(parts: list[Factors]) -> Factors:
    """What converters make of split parts: down factors stacked, up factors on a block diagonal."""
    return Factors(torch.cat([part.down for part in parts]), torch.block_diag(*(part.up for part in parts)))


@pytest.mark.parametrize(
    "modules",
    [{"layers.0.attention.qkv": (3 * H, H)}, {f"layers.0.attention.to_{x}": (H, H) for x in "qkv"}],
    ids=["native", "diffusers"],
)
@pytest.mark.parametrize("alpha", [None, 6, 3])
def test_case_10_a_converted_qkv_of_rank_3r(modules, alpha):
    """``lora_unet_layers_0_attention_qkv`` as converters to ComfyUI's Z-Image write it: rank 3r with the blocks of q, k
    and v on the up factor's diagonal. Whatever alpha they wrote is over the rank of the file, 3r."""
    parts = [factors(H, H, rank=2) for _ in "qkv"]
    pair = block_sparse(parts)._replace(alpha=alpha)
    added, _ = composed(model_of(modules), kohya("lora_unet_layers_0_attention_qkv", pair))
    strength = 1.0 if alpha is None else alpha / 6
    same(torch.cat(list(added.values())), torch.cat([strength * part.delta for part in parts]))


@pytest.mark.parametrize("third", range(3))
def test_case_17_onetrainer_numbers_the_thirds_of_qkv(third):
    """``transformer.double_blocks.0.img_attn.qkv.1.lora_down.weight``: k."""
    pair = factors(H, H, rank=3, alpha=1)
    stem = f"transformer.double_blocks.0.img_attn.qkv.{third}"
    added, keys = composed(model_of(QKV), kohya(stem, pair))
    expected = [torch.zeros(H, H)] * 3
    expected[third] = pair.delta
    same(added["double_blocks.0.img_attn.qkv"], torch.cat(expected))
    assert keys[f"{stem}.alpha"]["targets"][0]["rows"] == [third * H, (third + 1) * H]
    added, _ = composed(model_of(SPLIT), kohya(stem, pair))
    same(torch.cat([added[module] for module in SPLIT]), torch.cat(expected))


def test_case_17_onetrainer_linear1_3_is_the_mlp():
    pair = factors(4 * H, H, alpha=1)
    stem = "transformer.single_blocks.0.linear1.3"
    added, keys = composed(model_of({"single_blocks.0.linear1": (7 * H, H)}), kohya(stem, pair))
    same(added["single_blocks.0.linear1"], torch.cat([torch.zeros(3 * H, H), pair.delta]))
    assert where(keys[f"{stem}.lora_up.weight"]) == [("single_blocks.0.linear1", [3 * H, 7 * H], None, None)]
    added, _ = composed(model_of(SINGLE), kohya(stem, pair))
    same(added["single_transformer_blocks.0.proj_mlp"], pair.delta)


LUMINA = {"layers.0.attn.to_q": (3 * H, H), "layers.0.attn.to_k": (H, H), "layers.0.attn.to_v": (H, H)}


def test_case_29_lumina2_shares_keys_and_values():
    """``diffusion_model.layers.0.attention.qkv``: 2304, 768 and 768 rows in Lumina 2, whose heads share k and v."""
    pair = factors(5 * H, H)
    stem = "diffusion_model.layers.0.attention.qkv"
    added, keys = composed(model_of(LUMINA), pair.keyed(stem))
    same(torch.cat([added[module] for module in LUMINA]), pair.delta)
    sections = [target["factor_rows"] for target in keys[f"{stem}.lora_B.weight"]["targets"]]
    assert sections == [[0, 3 * H], [3 * H, 4 * H], [4 * H, 5 * H]]


def test_case_29_z_image_does_not():
    """The same name with thirds of 3840: the model tells."""
    pair = factors(3 * H, H)
    split = {f"layers.0.attention.to_{x}": (H, H) for x in "qkv"}
    added, _ = composed(model_of(split), pair.keyed("diffusion_model.layers.0.attention.qkv"))
    same(torch.cat([added[module] for module in split]), pair.delta)


@pytest.mark.parametrize("part", ["to_q", "to_k", "to_v"])
def test_case_29_unequal_thirds_the_other_way_round(part):
    """Lumina 2's split parts on its fused matrix. ComfyUI takes thirds: k would begin in q's rows and v end beyond the
    matrix."""
    begin, end = {"to_q": (0, 3), "to_k": (3, 4), "to_v": (4, 5)}[part]
    pair = factors((end - begin) * H, H, alpha=3)
    stem = f"transformer.layers.0.attn.{part}"
    module = "layers.0.attention.qkv"
    added, keys = composed(model_of({module: (5 * H, H)}), kohya(stem, pair))
    expected = torch.zeros(5 * H, H, dtype=torch.float64)
    expected[begin * H : end * H] = pair.delta
    same(added[module], expected)
    assert where(keys[f"{stem}.lora_up.weight"]) == [(module, [begin * H, end * H], None, None)]


def test_case_29_what_fits_neither_is_refused():
    """Thirds of a model of other proportions are no guess."""
    stem = "diffusion_model.layers.0.attention.qkv"
    verdict = told(model_of(LUMINA), factors(6 * H, H).keyed(stem))[f"{stem}.lora_B.weight"]
    assert verdict["outcome"] == "unsupported"
    assert f"[{6 * H}, {H}]" in verdict["reason"]
