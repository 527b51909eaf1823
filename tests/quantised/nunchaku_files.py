"""LoRA files for what Nunchaku quantised, trained on the unfused model of diffusers, and what each has to do.

Nothing of lora_mmap is used. Which of diffusers' Linears a module holds, and how, is said by its name (``homes``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from nunchaku_modules import AWQW4A16Linear, SVDQW4A4Linear
from safetensors.torch import save_file
from torch import nn

_QKV = ("to_q", "to_k", "to_v")
_STACKED = {  # the end of a module's name -> those of diffusers' Linears whose rows it has, from the first on
    "attn.to_qkv": tuple(f"attn.{part}" for part in _QKV),
    "attn.add_qkv_proj": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attention.to_qkv": tuple(f"attention.{part}" for part in _QKV),
    "attention.qkv": tuple(f"attention.{part}" for part in _QKV),
    "feed_forward.net.0.proj": ("feed_forward.w3", "feed_forward.w1"),
    "feed_forward.w13": ("feed_forward.w3", "feed_forward.w1"),
}
_RENAMED = {
    "feed_forward.net.2": "feed_forward.w2",
    "attention.out": "attention.to_out.0",
    "mlp_fc1": "proj_mlp",
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
}
_WOVEN = {"img_mod.1": 6, "txt_mod.1": 6, "norm1.linear": 6, "norm1_context.linear": 6, "norm.linear": 3}


class Home(NamedTuple):
    """Part of diffusers' Linear ``part``: its columns from ``col`` on, as the module's rows from ``row`` on. ``woven``:
    the module has so many of its vectors in turn."""

    module: str
    part: str
    rows: int
    cols: int
    row: int = 0
    col: int = 0
    woven: int = 1


def homes(model):
    """Where in ``model`` diffusers' Linears are, in the order of its modules."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, SVDQW4A4Linear | AWQW4A16Linear | nn.Linear):
            found += _homes_of(name, module, model)
    return found


def _homes_of(name, module, model):
    rows, cols = module.out_features, module.in_features
    for ending, parts in _STACKED.items():
        if name.endswith(ending):
            each = rows // len(parts)
            stem = name.removesuffix(ending)
            return [Home(name, stem + part, each, cols, place * each) for place, part in enumerate(parts)]
    block, _, last = name.rpartition(".mlp_fc2")
    if block and not last:
        return [Home(name, f"{block}.proj_out", rows, cols, 0, model.get_submodule(f"{block}.attn.to_out").in_features)]
    if name.startswith("single_") and name.endswith(".attn.to_out"):
        return [Home(name, name.removesuffix("attn.to_out") + "proj_out", rows, cols)]
    if isinstance(module, AWQW4A16Linear):
        woven = next(count for ending, count in _WOVEN.items() if name.endswith(ending))
        return [Home(name, name, rows, cols, woven=woven)]
    is_whole_name = {"x_embedder", "final_layer.linear"}  # of ComfyUI's Z-Image: Flux' is at home in diffusers
    for ending, part in _RENAMED.items():
        if name.endswith(ending) and (ending not in is_whole_name or type(model).__name__ == "NextDiT"):
            return [Home(name, name.removesuffix(ending) + part, rows, cols)]
    return [Home(name, name, rows, cols)]


class Factors(NamedTuple):
    """The tensors of one part by the ending of their keys, at the file's dtype. ``alpha`` is None where the file has
    none; ``divisor`` is what it is divided by."""

    tensors: dict[str, torch.Tensor]
    alpha: float | None
    divisor: int

    @property
    def scale(self):
        return 1.0 if self.alpha is None else float(torch.tensor(self.alpha)) / self.divisor

    def delta(self):
        """What they add to the weight of their part, float64."""
        own = {key: value.double() for key, value in self.tensors.items()}
        if "lokr_w1" in own:
            second = own["lokr_w2"] if "lokr_w2" in own else own["lokr_w2_a"] @ own["lokr_w2_b"]
            return self.scale * torch.kron(own["lokr_w1"], second)
        if "hada_w1_a" in own:
            first, second = (own[f"hada_w{n}_a"] @ own[f"hada_w{n}_b"] for n in (1, 2))
            return self.scale * first * second
        return self.scale * own["up"] @ own["down"]


class Deltas(Mapping):
    """What a file adds to each module, computed when asked for: ``deltas[module]`` is float64 [out, in] in the module's
    own order of rows, ``deltas.planar(module)`` has the vectors of a modulation one after the other, as trained."""

    def __init__(self, model, factors):
        self._shapes = {}
        self._homes = {}
        for home in homes(model):
            if home.part in factors:
                module = model.get_submodule(home.module)
                self._shapes[home.module] = (module.out_features, module.in_features)
                self._homes.setdefault(home.module, []).append(home)
        self._factors = factors

    def __len__(self):
        return len(self._homes)

    def __iter__(self):
        return iter(self._homes)

    def __getitem__(self, module):
        planar = self.planar(module)
        vectors = self._homes[module][0].woven
        each = planar.shape[0] // vectors
        woven = torch.empty_like(planar)
        for vector in range(vectors):
            woven[vector::vectors] = planar[vector * each : (vector + 1) * each]
        return woven

    def planar(self, module):
        """As ``self[module]``, but for a modulation's rows as diffusers has them."""
        total = torch.zeros(self._shapes[module], dtype=torch.float64)
        for home in self._homes[module]:
            delta = self._factors[home.part].delta()
            total[home.row : home.row + home.rows] = delta[:, home.col : home.col + home.cols]
        return total

    def parts(self, module):
        """{diffusers' name: Factors} of what is in this module, first rows first."""
        return {home.part: self._factors[home.part] for home in self._homes[module]}


class Dialect(NamedTuple):
    """``flat``: the path's dots are underscores."""

    prefix: str
    flat: bool
    down: str
    up: str
    alpha: str | None

    def key(self, part, ending):
        return self.prefix + (part.replace(".", "_") if self.flat else part) + ending


DIALECTS = {
    "kohya": Dialect("lora_unet_", True, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "diffusers": Dialect("transformer.", False, ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "comfyui": Dialect("diffusion_model.", False, ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "comfyui_kohya_words": Dialect("diffusion_model.", False, ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "peft": Dialect("base_model.model.", False, ".lora_A.weight", ".lora_B.weight", None),
    "lycoris": Dialect("lycoris_", True, "", "", ".alpha"),
}


def write(
    folder,
    model,
    dialect,
    *,
    ranks=(4, 8, 5, 16),
    alphas=(4.0, 2.0, None, 8.0, 1.0),
    seed=0,
    dtype=torch.float32,
    parts=lambda part: True,
    size=0.1,
):
    """(path, :class:`Deltas`) of a LoRA on those of diffusers' Linears that ``parts`` says yes to.

    Ranks and alphas are taken in turn from part to part, so that q, k and v have different ones; an alpha of None is no
    alpha at all. In ``peft`` the path is a folder, with ranks and alphas in its ``adapter_config.json``.
    """
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for number, (part, (rows, cols)) in enumerate(_shapes(model, parts).items()):
        rank = ranks[number % len(ranks)]
        down = torch.randn(rank, cols, generator=generator) * size
        up = torch.randn(rows, rank, generator=generator) * size
        alpha = alphas[number % len(alphas)]
        factors[part] = Factors({"down": down.to(dtype), "up": up.to(dtype)}, alpha, rank)
    return _saved(Path(folder), dialect, factors, seed), Deltas(model, factors)


def write_loha(folder, model, parts, *, rank=3, alpha=2.0, seed=0, dtype=torch.float32, size=0.3, dialect="lycoris"):
    """(path, Deltas) of a LoHa: its difference has a rank of up to the square of ``rank``."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for part, (rows, cols) in _shapes(model, parts).items():
        shapes = {f"hada_w{n}_{x}": (rows, rank) if x == "a" else (rank, cols) for n in (1, 2) for x in "ab"}
        tensors = {key: (torch.randn(shape, generator=generator) * size).to(dtype) for key, shape in shapes.items()}
        factors[part] = Factors(tensors, alpha, rank)
    return _saved(Path(folder), dialect, factors, seed), Deltas(model, factors)


def write_lokr(
    folder,
    model,
    parts,
    *,
    rank=3,
    blocks=4,
    alpha=2.0,
    seed=0,
    dtype=torch.float32,
    size=0.3,
    whole=False,
    dialect="lycoris",
):
    """(path, Deltas) of a LoKr with a first factor of ``blocks`` x ``blocks``: its difference has a rank of up to
    ``blocks`` times ``rank``, of any with a ``whole`` second factor (whose alpha counts for nothing)."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for part, (rows, cols) in _shapes(model, parts).items():
        second = {"lokr_w2_a": (rows // blocks, rank), "lokr_w2_b": (rank, cols // blocks)}
        if whole:
            second = {"lokr_w2": (rows // blocks, cols // blocks)}
        shapes = {"lokr_w1": (blocks, blocks), **second}
        tensors = {key: (torch.randn(shape, generator=generator) * size).to(dtype) for key, shape in shapes.items()}
        factors[part] = Factors(tensors, None if whole else alpha, rank)
    return _saved(Path(folder), dialect, factors, seed), Deltas(model, factors)


def _shapes(model, parts):
    """{diffusers' Linear: (rows, cols)} of those that ``parts`` says yes to."""
    shapes = {}
    for home in homes(model):
        if parts(home.part):
            _, cols = shapes.get(home.part, (0, 0))
            shapes[home.part] = (home.rows, max(cols, home.col + home.cols))
    assert shapes, "no part of the model was asked for"
    return shapes


def _saved(folder, dialect, factors, seed):
    spelling = DIALECTS[dialect]
    tensors = {}
    for part, own in factors.items():
        endings = {"down": spelling.down, "up": spelling.up}
        for key, value in own.tensors.items():
            tensors[spelling.key(part, endings.get(key, f".{key}"))] = value.contiguous()
        if own.alpha is not None and spelling.alpha:
            tensors[spelling.key(part, spelling.alpha)] = torch.tensor(own.alpha)
    if dialect != "peft":
        path = folder / f"{dialect}-{seed}.safetensors"
        save_file(tensors, str(path))
        return path
    folder = folder / f"peft-{seed}"
    folder.mkdir()
    save_file(tensors, str(folder / "adapter_model.safetensors"), {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(_peft_config(factors)))
    return folder


def _peft_config(factors):
    """PEFT's alpha is the rank where nothing else is said of a scale."""
    alphas = {part: own.divisor if own.alpha is None else own.alpha for part, own in factors.items()}
    return {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 8,
        "rank_pattern": {part: own.divisor for part, own in factors.items() if own.divisor != 8},
        "alpha_pattern": {part: alpha for part, alpha in alphas.items() if alpha != 8},
        "target_modules": list(factors),
        "use_rslora": False,
        "use_dora": False,
    }
