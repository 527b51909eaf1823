"""Flux.1 files that are named like neither of its two models: xlabs, USO and OneTrainer's split of the fused layers."""

from collections.abc import Iterator

from .trainers import Tensors, pair

H, MLP = 3072, 12288
_PAIR = (".down.weight", ".up.weight")
_KOHYA = (".lora_down.weight", ".lora_up.weight", ".alpha")

# (stem, endings, [rows, cols] of the pair, native module, its rows)
Row = tuple[str, tuple[str, ...], tuple[int, int], str, tuple[int, int] | None]


def xlabs(block: int) -> Iterator[Row]:
    """lora1 is the image's, lora2 the text's."""
    b = f"double_blocks.{block}."
    for number, side in ((1, "img"), (2, "txt")):
        yield f"{b}processor.qkv_lora{number}", _PAIR, (3 * H, H), f"{b}{side}_attn.qkv", None
        yield f"{b}processor.proj_lora{number}", _PAIR, (H, H), f"{b}{side}_attn.proj", None


def uso(block: int) -> Iterator[Row]:
    """xlabs' names in single blocks: qkv without the MLP, and all of linear2."""
    yield from xlabs(block)
    b = f"single_blocks.{block}."
    yield f"{b}processor.qkv_lora", _PAIR, (3 * H, H), f"{b}linear1", (0, 3 * H)
    yield f"{b}processor.proj_lora", _PAIR, (H, H + MLP), f"{b}linear2", None


def onetrainer(block: int) -> Iterator[Row]:
    """The original names, with the number of the part behind those that diffusers has apart."""
    b = f"double_blocks.{block}."
    for side in ("img", "txt"):
        for part in range(3):
            rows = (part * H, (part + 1) * H)
            yield f"transformer.{b}{side}_attn.qkv.{part}", _KOHYA, (H, H), f"{b}{side}_attn.qkv", rows
        yield f"transformer.{b}{side}_attn.proj", _KOHYA, (H, H), f"{b}{side}_attn.proj", None
        yield f"transformer.{b}{side}_mlp.0", _KOHYA, (MLP, H), f"{b}{side}_mlp.0", None
    b = f"single_blocks.{block}."
    for part, rows in enumerate([(0, H), (H, 2 * H), (2 * H, 3 * H), (3 * H, 3 * H + MLP)]):
        yield f"transformer.{b}linear1.{part}", _KOHYA, (rows[1] - rows[0], H), f"{b}linear1", rows
    yield f"transformer.{b}linear2", _KOHYA, (H, H + MLP), f"{b}linear2", None


def written(row: Row) -> Tensors:
    stem, endings, shape, _, _ = row
    return pair([stem + ending for ending in endings], shape)
