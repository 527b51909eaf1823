"""The demo's story: compose, report, check against float64, reset, prove it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from ..compose import compose, reset
from . import adapters
from .adapters import Factors
from .check import digest, excess
from .models import QWEN_WIDTH, qwen_image, sdxl_unet

# What each file holds, with its strength.
Written = list[tuple[dict[str, Factors], float]]

# Where the split projections of a file land in the fused weights of the Qwen-Image-shaped model.
_QWEN_PARTS = {
    "attn.to_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.add_qkv_proj": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def run(console: Console, blocks: int) -> bool:
    """Runs both models; True when every check passed."""
    with tempfile.TemporaryDirectory(prefix="lora_mmap_demo_") as folder:
        results = [_qwen(console, Path(folder), blocks), _sdxl(console, Path(folder))]
    console.print("[bold green]all checks passed[/]" if all(results) else "[bold red]a check FAILED[/]")
    return all(results)


def _qwen(console: Console, folder: Path, blocks: int) -> bool:
    console.rule(f"Qwen-Image-shaped transformer, {blocks} block(s), bf16, fused to_qkv / add_qkv_proj")
    torch.manual_seed(0)
    model = qwen_image(blocks, fused=True)
    modules = _split(model)
    plans = [
        (adapters.PEFT, 16, torch.bfloat16, 0.8),
        (adapters.KOHYA, 32, torch.float16, 0.5),
        (adapters.COMFYUI, 8, torch.float32, -0.3),
    ]
    files = [
        (folder / f"qwen_{i}.safetensors", dialect, strength, rank, dtype)
        for i, (dialect, rank, dtype, strength) in enumerate(plans)
    ]
    written = [
        (adapters.write(path, modules, dialect, rank, dtype, seed), strength)
        for seed, (path, dialect, strength, rank, dtype) in enumerate(files)
    ]
    return _prove(console, model, [(path, strength) for path, _, strength, _, _ in files], _fuse_parts(written))


def _sdxl(console: Console, folder: Path) -> bool:
    console.rule("SDXL-shaped UNet, bf16, Linear and Conv2d")
    torch.manual_seed(1)
    model = sdxl_unet()
    modules = [(name, tuple(module.weight.shape)) for name, module in _weighted(model)]
    linears = [(name, shape) for name, shape in modules if len(shape) == 2]
    kohya = adapters.write(folder / "sdxl_0.safetensors", modules, adapters.KOHYA, 16, torch.float16, 3)
    old = adapters.write(folder / "sdxl_1.safetensors", linears, adapters.DIFFUSERS_OLD, 4, torch.float32, 4)
    entries = [(folder / "sdxl_0.safetensors", 1.0), (folder / "sdxl_1.safetensors", 0.6)]
    return _prove(console, model, entries, [(kohya, 1.0), (old, 0.6)])


def _prove(console: Console, model: nn.Module, entries: list[tuple[Path, float]], written: Written) -> bool:
    before = digest(model)
    pristine = {name: module.weight.detach().clone() for name, module in _weighted(model)}
    begin = time.perf_counter()
    report = compose(model, entries)
    seconds = time.perf_counter() - begin
    console.print(str(report), markup=False, highlight=False, soft_wrap=True)
    worst = max(
        excess(
            module.weight,
            pristine[name],
            [
                (factors[name][0], factors[name][1], strength * factors[name][2])
                for factors, strength in written
                if name in factors
            ],
        )
        for name, module in _weighted(model)
    )
    changed = digest(model) != before
    reset(model)
    after = digest(model)
    restored = after == before
    console.print(f"composed in {seconds * 1e3:.0f} ms; largest error {worst:.3f} of what one rounding allows")
    console.print(f"after reset: SHA-256 {after[:16]}…, {'identical to' if restored else 'DIFFERENT from'} before")
    return bool(report) and changed and restored and worst <= 1.0 and not report.unmatched


def _weighted(model: nn.Module) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def _split(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """The model's weights by the names a file uses: q, k and v apart."""
    modules: list[tuple[str, tuple[int, ...]]] = []
    for name, module in _weighted(model):
        for fused, parts in _QWEN_PARTS.items():
            if name.endswith(fused):
                stem = name.removesuffix(fused)
                modules += [(stem + part, (QWEN_WIDTH, module.weight.shape[1])) for part in parts]
                break
        else:
            modules.append((name, tuple(module.weight.shape)))
    return modules


def _fuse_parts(written: Written) -> Written:
    """The same effect in the fused model's names: downs stacked, ups block-diagonal."""
    result = []
    for factors, strength in written:
        fused = dict(factors)
        for name in factors:
            for whole, parts in _QWEN_PARTS.items():
                if name.endswith(parts[0]):
                    stem = name.removesuffix(parts[0])
                    pieces = [fused.pop(stem + part) for part in parts]
                    up = _block_diagonal([piece[0] for piece in pieces])
                    fused[stem + whole] = (up, torch.cat([piece[1] for piece in pieces]), pieces[0][2])
        result.append((fused, strength))
    return result


def _block_diagonal(blocks: list[torch.Tensor]) -> torch.Tensor:
    whole = torch.zeros(sum(len(block) for block in blocks), sum(block.shape[1] for block in blocks))
    row = col = 0
    for block in blocks:
        whole[row : row + len(block), col : col + block.shape[1]] = block
        row, col = row + len(block), col + block.shape[1]
    return whole
