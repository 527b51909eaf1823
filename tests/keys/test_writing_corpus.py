"""Real models and lists: every matrix written in each dialect and read back, and what trainers write themselves."""

import math

import corpus
import pytest
from spelled.trainers import RANK
from spelled.verdicts import Target, require_applied, verdicts

from lora_mmap.families.dialects import DIALECTS
from lora_mmap.families.writing import spell

pytestmark = pytest.mark.skipif(not corpus.ROOT.is_dir(), reason=f"no corpus at {corpus.ROOT}")

# What the names of the corpus' models begin with -> the family.
FAMILIES = {
    "auraflow": "auraflow",
    "chroma": "chroma",
    "flux2": "flux2",
    "flux": "flux1",
    "hidream": "hidream",
    "hunyuan_video": "hunyuan_video",
    "krea2": "krea2",
    "ltx2": "ltx2",
    "ltx_video": "ltx_video",
    "lumina2": "lumina2",
    "pixart": "pixart",
    "qwen_image": "qwen_image",
    "sd15": "sd15",
    "sd35": "sd3",
    "sd3": "sd3",
    "sdxl": "sdxl",
    "wan": "wan",
    "z_image": "z_image",
}


def matrices(model):
    """{module: [rows, cols]} without the level that ComfyUI wraps around all of them."""
    return {
        key.removesuffix(".weight"): (shape[0], math.prod(shape[1:]))
        for key, shape in corpus.load("models", model).items()
        if len(shape) > 1 and key.endswith(".weight")
    }


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", corpus.names_in("models"))
def test_every_matrix_written_and_read_back(tmp_path, model, dialect):
    family = next(family for name, family in FAMILIES.items() if model.startswith(name))
    tensors, expected = {}, {}
    for module, (rows, cols) in matrices(model).items():
        for name in spell(module, dialect, family, shape=(rows, cols)):
            place = name.placement
            assert place.axis == "rows"
            total = rows * place.target_units // place.source_units
            tensors[name.up], tensors[name.down] = ("BF16", (total, RANK)), ("BF16", (RANK, cols))
            (run, *others) = place.scaled(total, rows)
            here = Target(
                module, None if run.size == rows or others else (run.source, run.source + run.size), bool(others)
            )
            for key in (name.up, name.down):
                expected.setdefault(key, set()).add(here)
    require_applied(verdicts(tmp_path, corpus.model(model), tensors), expected)


# A trainer's list -> the model it was made for, in diffusers' names, and the family.
LISTS = {
    "gen_kohya_flux_dit": ("flux_dev.diffusers", "flux1"),
    "gen_kohya_chroma": ("chroma.diffusers", "chroma"),
    "gen_kohya_sd15_locon": ("sd15_unet.diffusers", "sd15"),
    "gen_kohya_sd3_medium": ("sd3_medium.diffusers", "sd3"),
    "gen_kohya_sdxl_locon": ("sdxl_unet.diffusers", "sdxl"),
    "gen_musubi_flux2_klein4b": ("flux2_klein4b.diffusers", "flux2"),
    "gen_musubi_hunyuan_video": ("hunyuan_video.diffusers", "hunyuan_video"),
    "gen_musubi_krea2": ("krea2.diffusers", "krea2"),
    "gen_musubi_qwen_image": ("qwen_image.diffusers", "qwen_image"),
    "gen_musubi_wan21_t2v_14b": ("wan21_t2v_14b.diffusers", "wan"),
    "gen_musubi_zimage_all": ("z_image.diffusers", "z_image"),
    "gen_native_lumina2_kohya_all": ("lumina2.diffusers", "lumina2"),
}


@pytest.mark.parametrize("name", LISTS)
def test_trainers_own_lists(name):
    """All that a kohya trainer names of the denoiser is what we write for some module of diffusers' model."""
    model, family = LISTS[name]
    ours = {
        written.up for path, shape in matrices(model).items() for written in spell(path, "kohya", family, shape=shape)
    }
    theirs = {
        key
        for key in corpus.load("lists", name)["tensors"]
        if key.startswith("lora_unet_") and key.endswith(".lora_up.weight")
    }
    assert theirs
    assert theirs - ours == set()
