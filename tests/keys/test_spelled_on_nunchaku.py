"""Files on models fused as Nunchaku fuses them (here with plain weights): sections, columns and interleaved rows."""

import pytest
from spelled import trainers
from spelled.native_transformers import NATIVE
from spelled.published import matrices, published
from spelled.verdicts import Target, require_applied, verdicts
from stand_ins import stand_in

H, MLP = 3072, 12288
Z, Z_MLP = 3840, 10240


def flux_model():
    """Fused projections beside the names of diffusers; a single block's proj_out is two modules."""
    block, single = "transformer_blocks.0.", "single_transformer_blocks.0."
    shapes = {
        **{f"{block}{name}": (3 * H, H) for name in ("qkv_proj", "qkv_proj_context")},
        **{f"{block}{name}": (H, H) for name in ("out_proj", "out_proj_context")},
        **{f"{block}{name}": (MLP, H) for name in ("mlp_fc1", "mlp_context_fc1")},
        **{f"{block}{name}": (H, MLP) for name in ("mlp_fc2", "mlp_context_fc2")},
        **{f"{block}{name}.linear": (6 * H, H) for name in ("norm1", "norm1_context")},
        f"{single}qkv_proj": (3 * H, H),
        f"{single}out_proj": (H, H),
        f"{single}mlp_fc1": (MLP, H),
        f"{single}mlp_fc2": (H, MLP),
        f"{single}norm.linear": (3 * H, H),
    }
    return stand_in({f"{name}.weight": shape for name, shape in shapes.items()})


def flux_places():
    """diffusers' module -> where it goes."""
    block, single = "transformer_blocks.0.", "single_transformer_blocks.0."
    places = {
        block + "attn.to_out.0": {Target(block + "out_proj")},
        block + "attn.to_add_out": {Target(block + "out_proj_context")},
        block + "ff.net.0.proj": {Target(block + "mlp_fc1")},
        block + "ff.net.2": {Target(block + "mlp_fc2")},
        block + "ff_context.net.0.proj": {Target(block + "mlp_context_fc1")},
        block + "ff_context.net.2": {Target(block + "mlp_context_fc2")},
        block + "norm1.linear": {Target(block + "norm1.linear", None, True)},
        block + "norm1_context.linear": {Target(block + "norm1_context.linear", None, True)},
        single + "norm.linear": {Target(single + "norm.linear", None, True)},
        single + "proj_mlp": {Target(single + "mlp_fc1")},
        single + "proj_out": {Target(single + "out_proj"), Target(single + "mlp_fc2")},
    }
    for third, (own, added) in enumerate((("to_q", "add_q_proj"), ("to_k", "add_k_proj"), ("to_v", "add_v_proj"))):
        rows = (third * H, (third + 1) * H)
        places[f"{block}attn.{own}"] = {Target(block + "qkv_proj", rows)}
        places[f"{block}attn.{added}"] = {Target(block + "qkv_proj_context", rows)}
        places[f"{single}attn.{own}"] = {Target(single + "qkv_proj", rows)}
    return places


@pytest.mark.parametrize("dialect", ["diffusers_transformer", "kohya", "peft", "onetrainer"])
def test_flux_from_diffusers_names(tmp_path, dialect):
    places = flux_places()
    shapes = {module: shape for module, shape in matrices(published("flux")).items() if module in places}
    assert shapes.keys() == places.keys()
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], shapes)
    expected = {key: places[module] for key, module in meant.items()}
    require_applied(verdicts(tmp_path, flux_model(), tensors), expected)


@pytest.mark.parametrize("dialect", ["kohya", "comfyui"])
def test_flux_from_native_names(tmp_path, dialect):
    """Fused in the file and fused in the model, but not the same layers together."""
    by_native, shapes = {}, {}
    for module, targets in flux_places().items():
        place = NATIVE["flux"][module]
        rows, cols = matrices(published("flux"))[module]
        shapes[place.module] = (max(shapes.get(place.module, (0,))[0], place.rows[1] if place.rows else rows), cols)
        by_native.setdefault(place.module, set()).update(Target(to.module, None, to.permuted) for to in targets)
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], shapes)
    require_applied(
        verdicts(tmp_path, flux_model(), tensors), {key: by_native[module] for key, module in meant.items()}
    )


@pytest.mark.parametrize("dialect", ["diffusers_transformer", "kohya", "comfyui", "lightx2v"])
def test_qwen_image(tmp_path, dialect):
    """Six vectors of a channel side by side in the modulation, which AWQ keeps so: its packed weight is the sign."""
    block = "transformer_blocks.0."
    shapes = {block + "attn.to_qkv": (3 * H, H), block + "attn.add_qkv_proj": (3 * H, H)}
    shapes |= {block + f"{side}_mod.1": (6 * H, H) for side in ("img", "txt")}
    quantized = {block + f"{side}_mod.1.qweight": (6 * H // 4, H // 2) for side in ("img", "txt")}
    model = stand_in({**{f"{name}.weight": shape for name, shape in shapes.items()}, **quantized})
    places = {block + f"{side}_mod.1": {Target(block + f"{side}_mod.1", None, True)} for side in ("img", "txt")}
    for third, letter in enumerate("qkv"):
        rows = (third * H, (third + 1) * H)
        places[f"{block}attn.to_{letter}"] = {Target(block + "attn.to_qkv", rows)}
        places[f"{block}attn.add_{letter}_proj"] = {Target(block + "attn.add_qkv_proj", rows)}
    own = {module: shape for module, shape in matrices(published("qwen_image")).items() if module in places}
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], own)
    require_applied(verdicts(tmp_path, model, tensors), {key: places[module] for key, module in meant.items()})


@pytest.mark.parametrize("fused", [("attention.to_qkv", "feed_forward.net.0.proj", "feed_forward.net.2")])
@pytest.mark.parametrize("dialect", ["diffusers_transformer", "kohya", "comfyui"])
def test_z_image(tmp_path, dialect, fused):
    """The value w3 above the gate w1, as diffusers' SwiGLU has them."""
    qkv, first, second = (f"layers.0.{name}" for name in fused)
    model = stand_in({f"{qkv}.weight": (3 * Z, Z), f"{first}.weight": (2 * Z_MLP, Z), f"{second}.weight": (Z, Z_MLP)})
    places = {
        "layers.0.feed_forward.w3": {Target(first, (0, Z_MLP))},
        "layers.0.feed_forward.w1": {Target(first, (Z_MLP, 2 * Z_MLP))},
        "layers.0.feed_forward.w2": {Target(second)},
    }
    for third, letter in enumerate("qkv"):
        places[f"layers.0.attention.to_{letter}"] = {Target(qkv, (third * Z, (third + 1) * Z))}
    own = {module: shape for module, shape in matrices(published("z_image")).items() if module in places}
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], own)
    require_applied(verdicts(tmp_path, model, tensors), {key: places[module] for key, module in meant.items()})
