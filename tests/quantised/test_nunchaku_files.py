"""What the files of these tests are said to do is what their tensors say, by other words."""

import nunchaku_files
import nunchaku_models
import pytest
import torch
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear
from safetensors.torch import load_file

WIDTH = 64
MODELS = {
    "qwen_image": lambda: nunchaku_models.qwen_image(2, WIDTH, rank=16, device="meta"),
    "flux": lambda: nunchaku_models.flux(1, 1, WIDTH, rank=16, device="meta"),
    "z_image": lambda: nunchaku_models.z_image(1, WIDTH, rank=16, device="meta"),
    "z_image_comfy": lambda: nunchaku_models.z_image(1, WIDTH, comfy=True, rank=16, device="meta"),
}


def product(tensors, part, scale):
    """By diffusers' keys."""
    up, down = (tensors[f"transformer.{part}.lora_{side}.weight"].double() for side in "BA")
    return scale * up @ down


@pytest.mark.parametrize("kind", MODELS)
def test_every_module_gets_something(tmp_path, kind):
    model = MODELS[kind]()
    _, deltas = nunchaku_files.write(tmp_path, model, "kohya")
    quantised = {name for name, module in model.named_modules() if isinstance(module, SVDQW4A4Linear | AWQW4A16Linear)}
    assert quantised <= set(deltas)
    for name in deltas:
        module = model.get_submodule(name)
        assert deltas[name].shape == (module.out_features, module.in_features)
        assert deltas[name].abs().sum(1).min() > 0, name


def test_q_k_and_v_are_thirds_of_their_own_rank_and_alpha(tmp_path):
    path, deltas = nunchaku_files.write(
        tmp_path, MODELS["qwen_image"](), "diffusers", parts=lambda part: "1.attn.to_" in part and "out" not in part
    )
    tensors = load_file(path)
    block = "transformer_blocks.1.attn."
    assert list(deltas) == [block + "to_qkv"]
    assert [len(tensors[f"transformer.{block}to_{x}.lora_A.weight"]) for x in "qkv"] == [4, 8, 5]
    assert [float(tensors[f"transformer.{block}to_{x}.alpha"]) for x in "qk"] == [4, 2]
    assert f"transformer.{block}to_v.alpha" not in tensors
    thirds = deltas[block + "to_qkv"].chunk(3)
    for third, part, scale in zip(thirds, "qkv", (1, 0.25, 1), strict=True):
        torch.testing.assert_close(third, product(tensors, f"{block}to_{part}", scale), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "name", "vectors"),
    [
        ("qwen_image", "transformer_blocks.0.txt_mod.1", 6),
        ("flux", "transformer_blocks.0.norm1_context.linear", 6),
        ("flux", "single_transformer_blocks.0.norm.linear", 3),
    ],
)
def test_modulation_has_the_vectors_of_a_channel_together(tmp_path, kind, name, vectors):
    path, deltas = nunchaku_files.write(tmp_path, MODELS[kind](), "diffusers", ranks=[4], alphas=[8.0])
    old = product(load_file(path), name, 2)
    torch.testing.assert_close(deltas.planar(name), old, rtol=1e-12, atol=0)
    new = deltas[name]
    for channel in range(WIDTH):
        for vector in range(vectors):
            torch.testing.assert_close(new[channel * vectors + vector], old[vector * WIDTH + channel])


def test_flux_single_output_is_split_by_columns(tmp_path):
    path, deltas = nunchaku_files.write(tmp_path, MODELS["flux"](), "diffusers", ranks=[6], alphas=[3.0])
    block = "single_transformer_blocks.0."
    whole = product(load_file(path), block + "proj_out", 0.5)
    assert whole.shape == (WIDTH, 5 * WIDTH)
    torch.testing.assert_close(deltas[block + "attn.to_out"], whole[:, :WIDTH], rtol=1e-12, atol=0)
    torch.testing.assert_close(deltas[block + "mlp_fc2"], whole[:, WIDTH:], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "name"), [("z_image", "feed_forward.net.0.proj"), ("z_image_comfy", "feed_forward.w13")]
)
def test_z_image_has_the_value_before_the_gate(tmp_path, kind, name):
    path, deltas = nunchaku_files.write(tmp_path, MODELS[kind](), "diffusers", ranks=[4], alphas=[None])
    value, gate = deltas[f"layers.0.{name}"].chunk(2)
    tensors = load_file(path)
    torch.testing.assert_close(value, product(tensors, "layers.0.feed_forward.w3", 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(gate, product(tensors, "layers.0.feed_forward.w1", 1), rtol=1e-12, atol=0)


def test_missing_parts_add_nothing(tmp_path):
    _, deltas = nunchaku_files.write(
        tmp_path, MODELS["qwen_image"](), "comfyui", parts=lambda part: part == "transformer_blocks.0.attn.to_k"
    )
    q, k, v = deltas["transformer_blocks.0.attn.to_qkv"].chunk(3)
    assert k.abs().min() > 0
    assert q.abs().max() == v.abs().max() == 0


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "peft", "comfyui", "comfyui_kohya_words"])
def test_dialects_say_the_same(tmp_path, dialect):
    """One seed, one adapter: the tensors are those of the diffusers file, under other keys."""
    model = MODELS["qwen_image"]()
    path, deltas = nunchaku_files.write(tmp_path, model, dialect, seed=3)
    spelling = nunchaku_files.DIALECTS[dialect]
    tensors = load_file(path / "adapter_model.safetensors" if dialect == "peft" else path)
    for module in deltas:
        for part, factors in deltas.parts(module).items():
            assert torch.equal(tensors.pop(spelling.key(part, spelling.down)), factors.tensors["down"])
            assert torch.equal(tensors.pop(spelling.key(part, spelling.up)), factors.tensors["up"])
            if spelling.alpha and factors.alpha is not None:
                assert float(tensors.pop(spelling.key(part, spelling.alpha))) == factors.alpha
    assert not tensors
    (tmp_path / "other").mkdir()
    _, others = nunchaku_files.write(tmp_path / "other", model, "diffusers", seed=3)
    name = "transformer_blocks.1.attn.add_qkv_proj"
    assert torch.equal(deltas[name], others[name])


def test_peft_reads_the_folder(tmp_path):
    """Its own merge into an unfused model gives the same difference."""
    peft = pytest.importorskip("peft")
    path, deltas = nunchaku_files.write(
        tmp_path, MODELS["qwen_image"](), "peft", parts=lambda part: part.startswith("transformer_blocks.0.attn.to_")
    )
    block = torch.nn.Module()
    block.attn = torch.nn.Module()
    for part in ("to_q", "to_k", "to_v", "to_add_out"):
        block.attn.add_module(part, torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64))
    block.attn.to_out = torch.nn.ModuleList([torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64)])
    whole = torch.nn.Module()
    whole.transformer_blocks = torch.nn.ModuleList([block])
    pristine = {name: value.clone() for name, value in whole.state_dict().items()}
    merged = peft.PeftModel.from_pretrained(whole, str(path)).merge_and_unload().state_dict()
    change = {name: merged[name] - pristine[name] for name in pristine if name.endswith("weight")}
    stem = "transformer_blocks.0.attn."
    qkv = torch.cat([change[f"{stem}to_{x}.weight"] for x in "qkv"])
    torch.testing.assert_close(qkv, deltas[stem + "to_qkv"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(change[stem + "to_out.0.weight"], deltas[stem + "to_out.0"], rtol=1e-5, atol=1e-7)


def test_loha_and_lokr_by_element(tmp_path):
    model = MODELS["qwen_image"]()
    part = "transformer_blocks.0.attn.to_add_out"
    path, deltas = nunchaku_files.write_loha(tmp_path, model, lambda name: name == part, rank=3, alpha=2.0)
    flat = "lycoris_" + part.replace(".", "_")
    own = {key.removeprefix(flat + "."): value.double() for key, value in load_file(path).items()}
    row, col = 7, 21
    first, second = (own[f"hada_w{n}_a"][row] @ own[f"hada_w{n}_b"][:, col] for n in (1, 2))
    assert float(deltas[part][row, col]) == pytest.approx(float(first * second) * 2 / 3, rel=1e-12)
    path, deltas = nunchaku_files.write_lokr(tmp_path, model, lambda name: name == part, rank=3, alpha=2.0, seed=1)
    own = {key.removeprefix(flat + "."): value.double() for key, value in load_file(path).items()}
    row, col = 37, 21  # 16 x 16 blocks: block (2, 1), element (5, 5)
    found = own["lokr_w1"][2, 1] * (own["lokr_w2_a"][5] @ own["lokr_w2_b"][:, 5])
    assert float(deltas[part][row, col]) == pytest.approx(float(found) * 2 / 3, rel=1e-12)
    path, deltas = nunchaku_files.write_lokr(tmp_path, model, lambda name: name == part, whole=True, seed=2)
    own = {key.removeprefix(flat + "."): value.double() for key, value in load_file(path).items()}
    assert float(deltas[part][row, col]) == pytest.approx(float(own["lokr_w1"][2, 1] * own["lokr_w2"][5, 5]))


def test_qwen_image_reads_a_modulation_vector_by_vector():
    """The forward agrees with one that has the rows of every modulation in diffusers' order."""
    model = nunchaku_models.qwen_image(1, WIDTH, rank=16).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 3, 64), (2, 4, WIDTH), (2,))
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    expected = model(*inputs)
    block = model.transformer_blocks[0]
    for modulation in (block.img_mod, block.txt_mod):
        interleaved = modulation[1]
        rows = torch.arange(6 * WIDTH).reshape(WIDTH, 6).t().reshape(-1)  # of the interleaved output, in planar order
        planar = torch.nn.Linear(WIDTH, 6 * WIDTH, dtype=torch.float64)
        planar.weight.data = interleaved.dequantised()[rows]
        planar.bias.data = interleaved.bias.double()[rows]
        modulation[1] = planar
    assert not torch.allclose(model(*inputs), expected)
    block.woven = False
    torch.testing.assert_close(model(*inputs), expected, rtol=1e-12, atol=1e-12)
