"""The ``quantised`` case, and the loader that it measures lora_mmap beside. No timing is judged here."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import lora_mmap
from bench.adapters import write_diffusers
from bench.cases import quantised
from bench.low_rank_branches import Branches
from bench.peers import nunchaku_loader, safetensors_files
from bench.quantised_models import NunchakuQwenImageTransformer2DModel, svdq_linears, unfused
from bench.registry import Settings

WIDTH, RANK = 64, 4
NAME = "transformer_blocks.0.attn.to_qkv"


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products in two threads wait for each other."""
    ambient = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(ambient)


def model(blocks=1):
    torch.manual_seed(1)
    return NunchakuQwenImageTransformer2DModel(blocks, WIDTH)


def adapters(folder, modules, rank=RANK):
    linears = unfused(modules)
    return {
        name: write_diffusers(folder / f"{name}.safetensors", linears, rank, seed, "transformer.")
        for seed, name in enumerate("AB", 1)
    }


@pytest.mark.parametrize(("rank", "features"), [(16, 32), (48, 80), (32, 16)])
@pytest.mark.parametrize("down", [True, False], ids=["down", "up"])
def test_branches_are_packed_as_the_kernels_have_them(rank, features, down):
    """Element by element, by the published index formula."""
    matrix = torch.arange(rank * features).reshape((rank, features) if down else (features, rank))
    packed = nunchaku_loader.pack(matrix, down)
    assert packed.shape == (features, rank)
    flat = packed.reshape(-1).tolist()
    for r in range(rank):
        for c in range(features):
            n, k = (r % 16, c % 16) if down else (c % 16, r % 16)
            off = ((c // 16) * (rank // 16) + r // 16) * 256
            off += (n % 8) * 32 + ((k % 8) // 2) * 8 + (n // 8) * 4 + (k // 8) * 2 + (k % 2)
            assert flat[off] == matrix[(r, c) if down else (c, r)], (r, c)
    assert torch.equal(nunchaku_loader.unpack(packed, down), matrix)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("transformer.transformer_blocks.3.attn.to_q.lora_B.weight", ("transformer_blocks.3.attn.to_qkv", "q", "up")),
        (
            "lora_unet_transformer_blocks_3_attn_add_v_proj.alpha",
            ("transformer_blocks.3.attn.add_qkv_proj", "v", "alpha"),
        ),
        (
            "diffusion_model.transformer_blocks.0.txt_mlp.net.0.proj.lora_A.default.weight",
            ("transformer_blocks.0.txt_mlp.net.0.proj", "", "down"),
        ),
        (
            "transformer_blocks.0.ff_context.net.2.lora_down.weight",
            ("transformer_blocks.0.ff_context.net.2", "", "down"),
        ),
        ("lora_unet_layers_1_feed_forward_w3.lora_up.weight", ("layers.1.feed_forward.net.0.proj", "3", "up")),
    ],
)
def test_the_loader_knows_keys(key, found):
    assert nunchaku_loader.classify([key]) == {key: found}


def test_the_loader_leaves_other_keys_alone():
    assert nunchaku_loader.classify(["lora_unet_nowhere.alpha", "transformer_blocks.0.attn.to_q.weight"]) == {}


def test_the_loader_composes_sums_and_resets(tmp_path):
    modules = svdq_linears(model())
    paths = adapters(tmp_path, modules)
    branches = Branches(modules, paths, "transformer.")
    loader = nunchaku_loader.NunchakuLoader(modules)
    loader.compose([(paths["A"], 1.0)])
    branches.require("composed", ("A", 1.0))
    ranks = {name: module.rank for name, module in modules.items()}
    assert ranks == dict.fromkeys(modules, 48)  # three times 4, or 4, are 16 with padding
    loader.set_strength(paths["A"], 0.5)
    branches.require("weaker", ("A", 0.5))
    loader.compose([(paths["A"], 0.5), (paths["A"], 0.25), (paths["A"], 0.25)])
    branches.require("three at once", ("A", 1.0))
    loader.compose([(paths["B"], 1.0)])
    branches.require("switched", ("B", 1.0))
    loader.reset()
    branches.require("reset", None)


def test_branches_see_what_is_wrong(tmp_path):
    modules = svdq_linears(model())
    paths = adapters(tmp_path, modules)
    branches = Branches(modules, paths, "transformer.")
    with pytest.raises(AssertionError, match="nobody"):
        branches.require("nobody", ("A", 1.0))
    loader = nunchaku_loader.NunchakuLoader(modules)
    loader.compose([(paths["A"], 1.0)])
    for wrong in (("A", 0.5), ("B", 1.0), None):
        with pytest.raises(AssertionError, match="loader"):
            branches.require("loader", wrong)
    loader.reset()
    modules[NAME].proj_up.data[-1, -1] *= -1
    with pytest.raises(AssertionError, match="not what it was"):
        branches.require("one bit", None)


def test_the_loader_scales_by_alpha_and_takes_fused_layers_whole_or_not_at_all(tmp_path):
    modules = svdq_linears(model())
    tensors = {}
    for part in "qkv":
        stem = f"lora_unet_transformer_blocks_0_attn_to_{part}"
        tensors[f"{stem}.lora_down.weight"] = torch.ones(2, WIDTH)
        tensors[f"{stem}.lora_up.weight"] = torch.ones(WIDTH, 2)
        tensors[f"{stem}.alpha"] = torch.tensor({"q": 2.0, "k": 4.0, "v": 8.0}[part])
        tensors[f"transformer_blocks.0.attn.add_{part}_proj.lora_A.weight"] = torch.ones(2 + (part == "v"), WIDTH)
        tensors[f"transformer_blocks.0.attn.add_{part}_proj.lora_B.weight"] = torch.ones(WIDTH, 2 + (part == "v"))
    save_file(tensors, str(tmp_path / "file.safetensors"))
    before = nunchaku_loader.unpack(modules[NAME].proj_up, down=False)
    loader = nunchaku_loader.NunchakuLoader(modules)
    loader.compose([(tmp_path / "file.safetensors", 0.5)])
    up, down = (
        nunchaku_loader.unpack(getattr(modules[NAME], f"proj_{side}"), side == "down") for side in ("up", "down")
    )
    assert torch.equal(up[:, :32], before)
    added = up[:, 32:].float() @ down[32:].float()
    for third, value in zip(added.chunk(3), (1.0, 2.0, 4.0), strict=True):
        assert third.eq(value).all()
    assert {name for name, module in modules.items() if module.rank != 32} == {NAME}  # ranks of add_qkv_proj differ


def test_every_step_has_a_figure_of_everybody(tmp_path, monkeypatch):
    """lora_mmap's part is played by a second loader: what is composed here is not what is tested."""
    loaders = {}

    def loader_of(whole):
        return loaders.setdefault(whole, nunchaku_loader.NunchakuLoader(svdq_linears(whole)))

    class Report(dict):
        def to_dict(self):
            return self

    def compose(whole, entries, **options):
        loaders["last"] = entries[0][0]
        loader_of(whole).compose(entries)
        return Report(modules=dict.fromkeys(svdq_linears(whole)))

    def check(whole, path):
        keys = safetensors_files.keys(path)
        return SimpleNamespace(to_dict=lambda: {"keys": {key: {"outcome": "applied"} for key in keys}})

    monkeypatch.setattr(lora_mmap, "compose_loras_v2", compose)
    monkeypatch.setattr(
        lora_mmap,
        "set_lora_strength_v2",
        lambda whole, strength: loader_of(whole).set_strength(loaders["last"], strength),
    )
    monkeypatch.setattr(lora_mmap, "reset_lora_v2", lambda whole: loader_of(whole).reset())
    monkeypatch.setattr(lora_mmap, "check", check)
    monkeypatch.setattr(quantised, "_REAL_WIDTH", 128)
    monkeypatch.setattr(quantised, "_BLOCKS", 6)
    result = quantised.run(Settings(quick=True, repeats=2, warm_allocator=False, scratch=tmp_path))
    steps = {row.variant for row in result.rows}
    assert len(steps) == 11
    assert {"small width: compose A", "real width: reset", "small width: A at strength 0.5"} <= steps
    assert {(row.variant, row.contender) for row in result.rows} == {
        (step, who) for step in steps for who in ("lora_mmap", "nunchaku-loader")
    }
    assert all(row.seconds.rounds == 2 for row in result.rows)
    assert len(result.goals) == len(result.summary) == 11
    assert result.facts["microseconds_per_module"].keys() == steps
