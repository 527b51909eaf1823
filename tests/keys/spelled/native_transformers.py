"""What the published checkpoints (and ComfyUI) call the modules that diffusers' transformer classes have.

Written out by hand, model by model: diffusers' module -> where it is in the native model.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """A native module, which of its rows, and whether they are in another order there (swapped halves)."""

    module: str
    rows: tuple[int, int] | None = None
    permuted: bool = False


Places = Iterator[tuple[str, Place]]


def _same(diffusers: str, native: str) -> tuple[str, Place]:
    return diffusers, Place(native)


def _swapped(diffusers: str, native: str) -> tuple[str, Place]:
    """scale before shift in diffusers, shift before scale in the original."""
    return diffusers, Place(native, None, True)


def _stacked(native: str, *parts: tuple[str, int]) -> Places:
    """Modules that are one below the other in one native module, each with its number of rows."""
    begin = 0
    for diffusers, size in parts:
        yield diffusers, Place(native, (begin, begin + size))
        begin += size


def _qkv(native: str, width: int, *parts: str) -> Places:
    return _stacked(native, *((part, width) for part in parts))


def _flux_blocks(modulated: bool) -> Places:
    for i in range(2):
        d, n = f"transformer_blocks.{i}.", f"double_blocks.{i}."
        yield from _qkv(n + "img_attn.qkv", 3072, d + "attn.to_q", d + "attn.to_k", d + "attn.to_v")
        yield from _qkv(n + "txt_attn.qkv", 3072, d + "attn.add_q_proj", d + "attn.add_k_proj", d + "attn.add_v_proj")
        yield _same(d + "attn.to_out.0", n + "img_attn.proj")
        yield _same(d + "attn.to_add_out", n + "txt_attn.proj")
        yield _same(d + "ff.net.0.proj", n + "img_mlp.0")
        yield _same(d + "ff.net.2", n + "img_mlp.2")
        yield _same(d + "ff_context.net.0.proj", n + "txt_mlp.0")
        yield _same(d + "ff_context.net.2", n + "txt_mlp.2")
        d1, n1 = f"single_transformer_blocks.{i}.", f"single_blocks.{i}."
        rows = (d1 + "attn.to_q", 3072), (d1 + "attn.to_k", 3072), (d1 + "attn.to_v", 3072), (d1 + "proj_mlp", 12288)
        yield from _stacked(n1 + "linear1", *rows)
        yield _same(d1 + "proj_out", n1 + "linear2")
        if modulated:
            yield _same(d + "norm1.linear", n + "img_mod.lin")
            yield _same(d + "norm1_context.linear", n + "txt_mod.lin")
            yield _same(d1 + "norm.linear", n1 + "modulation.lin")


def _flux_embedders() -> Places:
    for diffusers, native in (("timestep", "time_in"), ("text", "vector_in"), ("guidance", "guidance_in")):
        yield _same(f"time_text_embed.{diffusers}_embedder.linear_1", native + ".in_layer")
        yield _same(f"time_text_embed.{diffusers}_embedder.linear_2", native + ".out_layer")


def _flux() -> Places:
    yield from _flux_blocks(modulated=True)
    yield from _flux_embedders()
    yield _same("x_embedder", "img_in")
    yield _same("context_embedder", "txt_in")
    yield _swapped("norm_out.linear", "final_layer.adaLN_modulation.1")
    yield _same("proj_out", "final_layer.linear")


def _chroma() -> Places:
    yield from _flux_blocks(modulated=False)
    yield _same("x_embedder", "img_in")
    yield _same("context_embedder", "txt_in")
    yield _same("proj_out", "final_layer.linear")
    for name in ("in_proj", "out_proj"):
        yield _same(f"distilled_guidance_layer.{name}", f"distilled_guidance_layer.{name}")
    for i in range(5):
        layer = f"distilled_guidance_layer.layers.{i}."
        yield _same(layer + "linear_1", layer + "in_layer")
        yield _same(layer + "linear_2", layer + "out_layer")


def _flux2() -> Places:
    for i in range(2):
        d, n = f"transformer_blocks.{i}.", f"double_blocks.{i}."
        yield from _qkv(n + "img_attn.qkv", 3072, d + "attn.to_q", d + "attn.to_k", d + "attn.to_v")
        yield from _qkv(n + "txt_attn.qkv", 3072, d + "attn.add_q_proj", d + "attn.add_k_proj", d + "attn.add_v_proj")
        yield _same(d + "attn.to_out.0", n + "img_attn.proj")
        yield _same(d + "attn.to_add_out", n + "txt_attn.proj")
        yield _same(d + "ff.linear_in", n + "img_mlp.0")
        yield _same(d + "ff.linear_out", n + "img_mlp.2")
        yield _same(d + "ff_context.linear_in", n + "txt_mlp.0")
        yield _same(d + "ff_context.linear_out", n + "txt_mlp.2")
        yield _same(f"single_transformer_blocks.{i}.attn.to_qkv_mlp_proj", f"single_blocks.{i}.linear1")
        yield _same(f"single_transformer_blocks.{i}.attn.to_out", f"single_blocks.{i}.linear2")
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"):
        yield _same(name + ".linear", name + ".lin")
    for diffusers, native in (("timestep", "time_in"), ("guidance", "guidance_in")):
        yield _same(f"time_guidance_embed.{diffusers}_embedder.linear_1", native + ".in_layer")
        yield _same(f"time_guidance_embed.{diffusers}_embedder.linear_2", native + ".out_layer")
    yield _same("x_embedder", "img_in")
    yield _same("context_embedder", "txt_in")
    yield _swapped("norm_out.linear", "final_layer.adaLN_modulation.1")
    yield _same("proj_out", "final_layer.linear")


def _z_image() -> Places:
    for part in ("noise_refiner", "context_refiner", "layers"):
        for i in range(2):
            b = f"{part}.{i}."
            attention = b + "attention."
            yield from _qkv(attention + "qkv", 3840, attention + "to_q", attention + "to_k", attention + "to_v")
            yield _same(attention + "to_out.0", attention + "out")
            for w in ("w1", "w2", "w3"):
                yield _same(b + "feed_forward." + w, b + "feed_forward." + w)
            if part != "context_refiner":
                yield _same(b + "adaLN_modulation.0", b + "adaLN_modulation.0")
    yield _same("all_x_embedder.2-1", "x_embedder")
    yield _same("all_final_layer.2-1.linear", "final_layer.linear")
    yield _same("all_final_layer.2-1.adaLN_modulation.1", "final_layer.adaLN_modulation.1")
    for name in ("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.1"):
        yield _same(name, name)


def _lumina2() -> Places:
    """24 heads for the queries, 8 for keys and values."""
    for part in ("noise_refiner", "context_refiner", "layers"):
        for i in range(2):
            b = f"{part}.{i}."
            rows = (b + "attn.to_q", 2304), (b + "attn.to_k", 768), (b + "attn.to_v", 768)
            yield from _stacked(b + "attention.qkv", *rows)
            yield _same(b + "attn.to_out.0", b + "attention.out")
            for n in (1, 2, 3):
                yield _same(f"{b}feed_forward.linear_{n}", f"{b}feed_forward.w{n}")
            if part != "context_refiner":
                yield _same(b + "norm1.linear", b + "adaLN_modulation.1")
    yield _same("x_embedder", "x_embedder")
    yield _same("time_caption_embed.timestep_embedder.linear_1", "t_embedder.mlp.0")
    yield _same("time_caption_embed.timestep_embedder.linear_2", "t_embedder.mlp.2")
    yield _same("time_caption_embed.caption_embedder.1", "cap_embedder.1")
    yield _same("norm_out.linear_1", "final_layer.adaLN_modulation.1")
    yield _same("norm_out.linear_2", "final_layer.linear")


def _sd3(dual: int) -> Places:
    """``dual``: how many first blocks have a second attention. The last block has no output for the text."""
    for i in range(3):
        d, n = f"transformer_blocks.{i}.", f"joint_blocks.{i}."
        x, context = n + "x_block.", n + "context_block."
        yield from _qkv(x + "attn.qkv", 1536, d + "attn.to_q", d + "attn.to_k", d + "attn.to_v")
        names = (d + "attn.add_q_proj", d + "attn.add_k_proj", d + "attn.add_v_proj")
        yield from _qkv(context + "attn.qkv", 1536, *names)
        yield _same(d + "attn.to_out.0", x + "attn.proj")
        yield _same(d + "ff.net.0.proj", x + "mlp.fc1")
        yield _same(d + "ff.net.2", x + "mlp.fc2")
        yield _same(d + "norm1.linear", x + "adaLN_modulation.1")
        last = i == 2
        yield (_swapped if last else _same)(d + "norm1_context.linear", context + "adaLN_modulation.1")
        if not last:
            yield _same(d + "attn.to_add_out", context + "attn.proj")
            yield _same(d + "ff_context.net.0.proj", context + "mlp.fc1")
            yield _same(d + "ff_context.net.2", context + "mlp.fc2")
        if i < dual:
            yield from _qkv(x + "attn2.qkv", 1536, d + "attn2.to_q", d + "attn2.to_k", d + "attn2.to_v")
            yield _same(d + "attn2.to_out.0", x + "attn2.proj")
    yield _same("pos_embed.proj", "x_embedder.proj")
    yield _same("context_embedder", "context_embedder")
    for diffusers, native in (("timestep", "t"), ("text", "y")):
        yield _same(f"time_text_embed.{diffusers}_embedder.linear_1", f"{native}_embedder.mlp.0")
        yield _same(f"time_text_embed.{diffusers}_embedder.linear_2", f"{native}_embedder.mlp.2")
    yield _swapped("norm_out.linear", "final_layer.adaLN_modulation.1")
    yield _same("proj_out", "final_layer.linear")


def _wan(image: bool) -> Places:
    for i in range(2):
        b = f"blocks.{i}."
        for diffusers, native in (("attn1", "self_attn"), ("attn2", "cross_attn")):
            for d, n in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o")):
                yield _same(f"{b}{diffusers}.{d}", f"{b}{native}.{n}")
        yield _same(b + "ffn.net.0.proj", b + "ffn.0")
        yield _same(b + "ffn.net.2", b + "ffn.2")
        if image:
            yield _same(b + "attn2.add_k_proj", b + "cross_attn.k_img")
            yield _same(b + "attn2.add_v_proj", b + "cross_attn.v_img")
    for diffusers, native in (("time_embedder", "time_embedding"), ("text_embedder", "text_embedding")):
        yield _same(f"condition_embedder.{diffusers}.linear_1", native + ".0")
        yield _same(f"condition_embedder.{diffusers}.linear_2", native + ".2")
    if image:
        yield _same("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1")
        yield _same("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3")
    yield _same("condition_embedder.time_proj", "time_projection.1")
    yield _same("patch_embedding", "patch_embedding")
    yield _same("proj_out", "head.head")


def _auraflow() -> Places:
    """In the double layers w1 is the text's and w2 the image's; the single ones have w1 only."""
    for i in range(2):
        d, n = f"joint_transformer_blocks.{i}.", f"double_layers.{i}."
        for letter in "qkv":
            yield _same(f"{d}attn.to_{letter}", f"{n}attn.w2{letter}")
            yield _same(f"{d}attn.add_{letter}_proj", f"{n}attn.w1{letter}")
            yield _same(f"single_transformer_blocks.{i}.attn.to_{letter}", f"single_layers.{i}.attn.w1{letter}")
        yield _same(d + "attn.to_out.0", n + "attn.w2o")
        yield _same(d + "attn.to_add_out", n + "attn.w1o")
        yield _same(d + "norm1.linear", n + "modX.1")
        yield _same(d + "norm1_context.linear", n + "modC.1")
        d1, n1 = f"single_transformer_blocks.{i}.", f"single_layers.{i}."
        yield _same(d1 + "attn.to_out.0", n1 + "attn.w1o")
        yield _same(d1 + "norm1.linear", n1 + "modCX.1")
        for feed, mlp in ((d + "ff.", n + "mlpX."), (d + "ff_context.", n + "mlpC."), (d1 + "ff.", n1 + "mlp.")):
            yield _same(feed + "linear_1", mlp + "c_fc1")
            yield _same(feed + "linear_2", mlp + "c_fc2")
            yield _same(feed + "out_projection", mlp + "c_proj")
    yield _same("pos_embed.proj", "init_x_linear")
    yield _same("context_embedder", "cond_seq_linear")
    yield _same("time_step_proj.linear_1", "t_embedder.mlp.0")
    yield _same("time_step_proj.linear_2", "t_embedder.mlp.2")
    yield _swapped("norm_out.linear", "modF.1")
    yield _same("proj_out", "final_linear")


def _pixart() -> Places:
    for i in range(2):
        d, n = f"transformer_blocks.{i}.", f"blocks.{i}."
        yield from _qkv(n + "attn.qkv", 1152, d + "attn1.to_q", d + "attn1.to_k", d + "attn1.to_v")
        yield _same(d + "attn1.to_out.0", n + "attn.proj")
        yield _same(d + "attn2.to_q", n + "cross_attn.q_linear")
        yield from _qkv(n + "cross_attn.kv_linear", 1152, d + "attn2.to_k", d + "attn2.to_v")
        yield _same(d + "attn2.to_out.0", n + "cross_attn.proj")
        yield _same(d + "ff.net.0.proj", n + "mlp.fc1")
        yield _same(d + "ff.net.2", n + "mlp.fc2")
    yield _same("pos_embed.proj", "x_embedder.proj")
    yield _same("adaln_single.linear", "t_block.1")
    yield _same("adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0")
    yield _same("adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2")
    yield _same("caption_projection.linear_1", "y_embedder.y_proj.fc1")
    yield _same("caption_projection.linear_2", "y_embedder.y_proj.fc2")
    yield _same("proj_out", "final_layer.linear")


def _hunyuan_video() -> Places:
    """As ComfyUI names it; Tencent's own checkpoint has img_attn_qkv for img_attn.qkv and mlp.fc1 for mlp.0."""
    yield from _flux_blocks(modulated=True)
    yield from _flux_embedders()
    refiner = "context_embedder.token_refiner.refiner_blocks."
    for i in range(2):
        d, n = f"{refiner}{i}.", f"txt_in.individual_token_refiner.blocks.{i}."
        yield from _qkv(n + "self_attn.qkv", 3072, d + "attn.to_q", d + "attn.to_k", d + "attn.to_v")
        yield _same(d + "attn.to_out.0", n + "self_attn.proj")
        yield _same(d + "ff.net.0.proj", n + "mlp.0")
        yield _same(d + "ff.net.2", n + "mlp.2")
        yield _same(d + "norm_out.linear", n + "adaLN_modulation.1")
    for diffusers, native in (("timestep", "t"), ("text", "c")):
        embedder = f"context_embedder.time_text_embed.{diffusers}_embedder.linear_"
        yield _same(embedder + "1", f"txt_in.{native}_embedder.in_layer")
        yield _same(embedder + "2", f"txt_in.{native}_embedder.out_layer")
    yield _same("context_embedder.proj_in", "txt_in.input_embedder")
    yield _same("x_embedder.proj", "img_in.proj")
    yield _swapped("norm_out.linear", "final_layer.adaLN_modulation.1")
    yield _same("proj_out", "final_layer.linear")


def _ltx_video() -> Places:
    """The blocks and the caption's projection have the same names."""
    for i in range(2):
        b = f"transformer_blocks.{i}."
        for attention in ("attn1.", "attn2."):
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                yield _same(b + attention + name, b + attention + name)
        for name in ("ff.net.0.proj", "ff.net.2"):
            yield _same(b + name, b + name)
    for name in ("linear", "emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2"):
        yield _same("time_embed." + name, "adaln_single." + name)
    yield _same("proj_in", "patchify_proj")
    for name in ("caption_projection.linear_1", "caption_projection.linear_2", "proj_out"):
        yield _same(name, name)


NATIVE: dict[str, dict[str, Place]] = {
    "flux": dict(_flux()),
    "chroma": dict(_chroma()),
    "flux2": dict(_flux2()),
    "z_image": dict(_z_image()),
    "lumina2": dict(_lumina2()),
    "sd3": dict(_sd3(dual=0)),
    "sd35_medium": dict(_sd3(dual=2)),
    "wan_t2v": dict(_wan(image=False)),
    "wan_i2v": dict(_wan(image=True)),
    "auraflow": dict(_auraflow()),
    "pixart_sigma": dict(_pixart()),
    "hunyuan_video": dict(_hunyuan_video()),
    "ltx_video": dict(_ltx_video()),
}
