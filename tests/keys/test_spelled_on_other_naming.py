"""Files in one naming on a model in the other: the right modules and rows, both ways, for every module of the model."""

import pytest
from spelled import flux_specials, trainers
from spelled.native_transformers import NATIVE, Place
from spelled.native_unets import native_unet
from spelled.published import matrices, published
from spelled.verdicts import Target, require_applied, verdicts
from stand_ins import stand_in

PREFIXES = {"comfyui_model": "diffusion_model.", "original_model": ""}  # what the native model's own names begin with
FROM_DIFFUSERS = ["diffusers_transformer", "kohya", "peft", "peft_default", "lycoris", "onetrainer", "comfyui"]
FROM_NATIVE = ["kohya", "comfyui", "peft", "bare", "transformer_of_comfyui"]
UNETS = ["sd15", "sdxl"]


def places(name):
    """diffusers' module -> its place in the native model."""
    if name in UNETS:
        return {module: Place(native) for module, native in native_unet(name, matrices(published(name))).items()}
    return NATIVE[name]


def native_shapes(name):
    """The native modules' weight shapes, from the pieces that diffusers has."""
    shapes = {}
    for module, place in places(name).items():
        rows, *rest = matrices(published(name))[module]
        shapes[place.module] = (max(shapes.get(place.module, (0,))[0], place.rows[1] if place.rows else rows), *rest)
    return shapes


def native_model(name, prefix):
    return stand_in({f"{prefix}{module}.weight": shape for module, shape in native_shapes(name).items()})


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("dialect", FROM_DIFFUSERS)
@pytest.mark.parametrize("name", [*NATIVE, *UNETS])
def test_diffusers_names_on_the_native_model(tmp_path, name, dialect, prefix):
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], matrices(published(name)))
    found = places(name)
    expected = {
        key: {Target(prefix + found[module].module, found[module].rows, found[module].permuted)}
        for key, module in meant.items()
    }
    require_applied(verdicts(tmp_path, native_model(name, prefix), tensors), expected)


@pytest.mark.parametrize("dialect", FROM_NATIVE)
@pytest.mark.parametrize("name", [*NATIVE, *UNETS])
def test_native_names_on_the_diffusers_model(tmp_path, name, dialect):
    """A fused factor goes to all modules that it holds, to the whole of each."""
    tensors, meant = trainers.spell(trainers.DENOISER[dialect], native_shapes(name))
    holds = {}
    for module, place in places(name).items():
        holds.setdefault(place.module, set()).add(Target(module, None, place.permuted))
    expected = {key: holds[native] for key, native in meant.items()}
    require_applied(verdicts(tmp_path, published(name), tensors), expected)


@pytest.mark.parametrize("name", UNETS)
def test_attention_processors_on_the_ldm_model(tmp_path, name):
    tensors, meant = trainers.attention_processor(matrices(published(name)))
    expected = {key: {Target(places(name)[module].module)} for key, module in meant.items()}
    require_applied(verdicts(tmp_path, native_model(name, ""), tensors), expected)


@pytest.mark.parametrize("writer", [flux_specials.xlabs, flux_specials.uso, flux_specials.onetrainer])
def test_flux_files_of_neither_naming(tmp_path, writer):
    """On the native model their rows; on diffusers' the modules whose rows they cover."""
    tensors, native, split = {}, {}, {}
    for row in (row for block in range(2) for row in writer(block)):
        _, _, _, module, rows = row
        own = flux_specials.written(row)
        tensors.update(own)
        covered = {
            Target(name)
            for name, place in NATIVE["flux"].items()
            if place.module == module and (rows is None or (rows[0] <= place.rows[0] and place.rows[1] <= rows[1]))
        }
        native.update({key: {Target(module, rows)} for key in own})
        split.update(dict.fromkeys(own, covered))
    require_applied(verdicts(tmp_path, native_model("flux", ""), tensors), native)
    require_applied(verdicts(tmp_path, published("flux"), tensors), split)
