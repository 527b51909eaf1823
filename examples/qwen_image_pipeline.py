"""A server's day with Qwen-Image: two pipelines, three adapters, every file opened once.

The pipelines are diffusers' own class with a transformer of reduced width and random weights, so this needs no download
and no GPU:

    python examples/qwen_image_pipeline.py
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

import torch
from random_adapters import sha256, write_diffusers, write_kohya

from lora_mmap import (
    PipelineReport,
    clear_lora_cache,
    delete_adapters,
    get_active_adapters,
    load_lora_and_optionally_fuse,
    lora_cache_info,
    set_and_fuse_adapters,
    unfuse_lora,
)

try:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
except ImportError as error:
    sys.exit(f"This example needs diffusers and transformers (pip install diffusers transformers): {error}")

REQUESTS = [
    {"lightning": 1.0},
    {"lightning": 1.0, "style": 0.8},
    {"style": 0.4, "detail": -0.5},
    {"detail": 0.25, "style": 0.5, "lightning": 1.0},
]


def main() -> int:
    pipelines = [tiny_qwen_image(seed) for seed in (0, 1)]
    pristine = [sha256(pipeline.transformer) for pipeline in pipelines]
    with tempfile.TemporaryDirectory() as name:
        adapters = write_adapters(pipelines[0].transformer, Path(name))
        for pipeline in pipelines:
            print(f"opened for loading: {sum(report.files_opened for report in preload(pipeline, adapters))} files")
        print(f"cache: {lora_cache_info()}")

        # Each thread has a pipeline; all of them read the same open files.
        threads = [threading.Thread(target=serve, args=(pipeline,)) for pipeline in pipelines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        # A strength is all that changes: nothing is opened, read, parsed or classified.
        report = set_and_fuse_adapters(pipelines[0], adapter_weights=[0.3, 0.6, 0.9])
        print(report)
        print(f"read for other strengths of {get_active_adapters(pipelines[0])}: {report.bytes_read} bytes")

        for pipeline in pipelines:
            unfuse_lora(pipeline)
        restored = [sha256(pipeline.transformer) for pipeline in pipelines]
        for pipeline in pipelines:
            delete_adapters(pipeline)
        print(f"freed by clear_lora_cache: {clear_lora_cache()}")

    print("after unfuse_lora sha256 of the transformers is")
    for before, after in zip(pristine, restored, strict=True):
        print(f"  {after}, which is {'the same as' if after == before else 'DIFFERENT from'} before")
    return 0 if restored == pristine else 1


def preload(pipeline: QwenImagePipeline, adapters: dict[str, Path]) -> list[PipelineReport]:
    """Opens every adapter and looks up its places; the weights stay as they are."""
    return [
        load_lora_and_optionally_fuse(pipeline, source, name, fuse=False, use_cache=True, strict=True)
        for name, source in adapters.items()
    ]


def serve(pipeline: QwenImagePipeline) -> None:
    """One pass over the weights for each request, from whatever the one before had left there."""
    for request in REQUESTS:
        set_and_fuse_adapters(pipeline, list(request), list(request.values()))


def write_adapters(transformer: QwenImageTransformer2DModel, folder: Path) -> dict[str, Path]:
    """In the three spellings that adapters for Qwen-Image come in: sd-scripts', diffusers', ComfyUI's."""
    return {
        "style": write_kohya(folder / "style.safetensors", {"lora_unet": transformer}, rank=8, alpha=4.0, seed=2),
        "lightning": write_diffusers(folder / "lightning", {"transformer": transformer}, rank=16, seed=3),
        "detail": write_diffusers(folder / "detail", {"diffusion_model": transformer}, rank=4, seed=4),
    }


def tiny_qwen_image(seed: int) -> QwenImagePipeline:
    """Qwen-Image's transformer, a twenty-fourth of its width, two of its sixty blocks."""
    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=8,
        joint_attention_dim=96,
        axes_dims_rope=(4, 6, 6),
    )
    return QwenImagePipeline(
        scheduler=None, vae=None, text_encoder=None, tokenizer=None, transformer=transformer.to(torch.bfloat16)
    )


if __name__ == "__main__":
    sys.exit(main())
