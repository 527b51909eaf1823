"""Where upstream, the Nunchaku Qwen-Image loader whose calls this library offers too, is wrong about a file's names.

It is not installed, so what it does is said in words, and in a formula where numbers matter.
"""

import pytest
import torch
from file_tensors import factors, kohya, kohya_parts
from small_models import H, composed, model_of, same, told, where

import lora_mmap
from lora_mmap.errors import UnmatchedKeysError

QKV = "transformer_blocks.0.attn.to_qkv"
PART = "transformer_blocks.0.attn.to_{}"


def fused_upstream(pairs, alpha):
    """Upstream: the parts stacked into one pair of all ranks together, with one part's alpha."""
    down = torch.cat([pair.down for pair in pairs]).double()
    up = torch.block_diag(*(pair.up for pair in pairs)).double()
    return alpha / down.shape[0] * (up @ down)


def test_split_qkv_with_alpha_is_applied_at_full_strength():
    """Upstream: at a third, because the rank it divides by is the three parts' together."""
    pairs = [factors(H, H, rank=4, alpha=4) for _ in "qkv"]
    added, _ = composed(model_of({QKV: (3 * H, H)}), kohya_parts(PART, dict(zip("qkv", pairs, strict=True))))
    same(added[QKV], torch.cat([pair.delta for pair in pairs]))
    same(added[QKV], 3 * fused_upstream(pairs, alpha=4))


def test_gate_and_value_with_alpha_are_applied_at_full_strength_and_in_place():
    """Upstream: at half, and with the halves in each other's place ([w1 ; w3] where the model has [w3 ; w1])."""
    module = "layers.0.feed_forward.w13"
    w1, w3 = factors(2 * H, H, rank=4, alpha=4), factors(2 * H, H, rank=4, alpha=4)
    tensors = kohya("layers.0.feed_forward.w1", w1) | kohya("layers.0.feed_forward.w3", w3)
    added, _ = composed(model_of({module: (4 * H, H)}), tensors)
    same(added[module], torch.cat([w3.delta, w1.delta]))
    same(added[module].roll(2 * H, 0), 2 * fused_upstream([w1, w3], alpha=4))


def test_each_part_has_its_own_alpha():
    """Upstream: the first part's alpha for all of them."""
    pairs = [factors(H, H, rank=2, alpha=alpha) for alpha in (1, 2, 8)]
    added, _ = composed(model_of({QKV: (3 * H, H)}), kohya_parts(PART, dict(zip("qkv", pairs, strict=True))))
    unscaled = [pair.up.double() @ pair.down.double() for pair in pairs]
    same(added[QKV], torch.cat([0.5 * unscaled[0], unscaled[1], 4 * unscaled[2]]))


@pytest.mark.parametrize("ranks", [(1, 2, 3), (4, 0, 2), (0, 3, 0)], ids=["unequal", "no k", "k alone"])
def test_unequal_ranks_and_absent_parts_are_no_reason_to_drop_a_module(ranks):
    """Upstream: drops the module when ranks differ or a part is missing."""
    pairs = {x: factors(H, H, rank=rank, alpha=1) for x, rank in zip("qkv", ranks, strict=True) if rank}
    added, _ = composed(model_of({QKV: (3 * H, H)}), kohya_parts(PART, pairs))
    same(added[QKV], torch.cat([pairs[x].delta if x in pairs else torch.zeros(H, H) for x in "qkv"]))


def test_w1_and_w2_of_lokr_are_no_alphas():
    """Upstream: gives them the role of alpha."""
    stem = PART.format("q")
    tensors = {
        f"{stem}.lokr_w1": torch.ones(2, 2),
        f"{stem}.lokr_w2": torch.ones(3, 3),
        f"{stem}.alpha": torch.ones(()),
    }
    keys = told(model_of({stem: (H, H)}), tensors)
    roles = {key.rpartition(".")[2]: verdict["targets"][0]["role"] for key, verdict in keys.items()}
    assert roles == {"lokr_w1": "w1", "lokr_w2": "w2", "alpha": "alpha"}


OTHERS = {  # the endings of one module's tensors -> what they are
    "loha": {"hada_w1_a": (H, 2), "hada_w1_b": (2, H), "hada_w2_a": (H, 2), "hada_w2_b": (2, H)},
    "glora": {"a1.weight": (H, 2), "a2.weight": (2, H), "b1.weight": (H, 2), "b2.weight": (2, H)},
    "oft": {"oft_blocks": (3, 2, 2)},
    "dora": {"lora_down.weight": (2, H), "lora_up.weight": (H, 2), "dora_scale": (H, 1)},
    "tucker": {"lora_down.weight": (2, H, 1, 1), "lora_up.weight": (H, 2, 1, 1), "lora_mid.weight": (2, 2, 1, 1)},
    "full": {"diff": (H, H)},
    "lora_bias": {"lora_A.weight": (2, H), "lora_B.weight": (H, 2), "lora_B.bias": (H,)},
}


@pytest.mark.parametrize("algorithm", OTHERS)
def test_other_algorithms_are_told_and_not_dropped(algorithm):
    """Upstream: does not see their keys, or fuses a DoRA's factors as if the rest were not there."""
    stem = PART.format("q")
    tensors = {f"{stem}.{ending}": torch.ones(shape) for ending, shape in OTHERS[algorithm].items()}
    model = model_of({stem: (H, H)}, **{stem.replace(".", "__") + "__bias": (H,)})
    with lora_mmap.open_adapter(tensors) as adapter:
        assert adapter.describe()["algorithms"] == {algorithm: 1}
    outcome = "unsupported" if algorithm in ("glora", "oft", "boft") else "applied"
    for verdict in told(model, tensors).values():
        assert verdict["outcome"] == outcome
        assert where(verdict) == [(stem, None, None, None)]


def test_factors_without_weight_in_their_name_are_applied():
    """Upstream: drops ``.lora_A`` without ``.weight``."""
    stem = PART.format("q")
    pair = factors(H, H)
    added, _ = composed(model_of({stem: (H, H)}), {f"{stem}.lora_A": pair.down, f"{stem}.lora_B": pair.up})
    same(added[stem], pair.delta)


@pytest.mark.parametrize(
    ("stem", "module"),
    [
        ("lora_unet_layers_0_attention_to_q", "layers.0.attention.to_q"),
        ("lora_unet_layers_0_feed_forward_w2", "layers.0.feed_forward.w2"),
        ("lora_unet_noise_refiner_1_attention_to_out_0", "noise_refiner.1.attention.to_out.0"),
        ("diffusion_model.context_refiner.0.feed_forward.w2", "context_refiner.0.feed_forward.w2"),
        ("diffusion_model.cap_embedder.1", "cap_embedder.1"),
        ("transformer.t_embedder.mlp.0", "t_embedder.mlp.0"),
        ("base_model.model.layers.0.attention.to_q", "layers.0.attention.to_q"),
        ("lycoris_layers_0_attention_to_q", "layers.0.attention.to_q"),
        ("lora_transformer_layers_0_attention_to_q", "layers.0.attention.to_q"),
        ("lora_unet__layers_0_attention_to_q", "layers.0.attention.to_q"),
    ],
)
def test_every_prefix_and_every_part_of_z_image(stem, module):
    """Upstream: maps underscores of Z-Image to modules that do not exist, and knows neither refiners nor embedders nor
    four of these prefixes."""
    pair = factors(H, H, alpha=1)
    added, _ = composed(model_of({module: (H, H)}), kohya(stem, pair))
    same(added[module], pair.delta)


def test_nothing_applied_is_false_and_an_error_where_the_caller_is_strict(caplog):
    """Upstream: returns True whatever it did."""
    model = model_of({PART.format("q"): (H, H)})
    tensors = factors(H, H).keyed("layers.0.attention.to_q")
    assert not lora_mmap.compose(model, [(tensors, 1.0)])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(UnmatchedKeysError, match=r"layers\.0\.attention\.to_q"):
        lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
