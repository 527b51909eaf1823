"""Every path of every naming, written in each dialect and read back, is for the same rows of the same modules."""

import family_models
import pytest
import torch
from torch import nn

import lora_mmap
from lora_mmap.families import key_tables
from lora_mmap.families.dialects import DIALECTS
from lora_mmap.families.placement import Placement, row_map
from lora_mmap.families.writing import spell

# Text encoders are written as parts of a model's pipeline.
PIPELINES = {
    "clip": ("sdxl", "text_encoder_2"),
    "t5": ("flux1", "text_encoder_2"),
    "language_model": ("lumina2", "text_encoder"),
}
FAMILIES = key_tables().families
OTHERS = ("native", "diffusers", "bare")  # what a model calls the weights that its own naming has no line for


def cases():
    for family in FAMILIES.values():
        for naming in family_models.namings(family):
            for dialect in DIALECTS:
                if "denoiser" in family.components or family.name in PIPELINES or dialect != "comfyui":
                    yield pytest.param(family, naming, dialect, id=f"{family.name}-{naming}-{dialect}")


def target(family):
    """(family, component) as ``spell`` takes them."""
    return PIPELINES.get(family.name, (family.name, family.components[0]))


def moved(factor: torch.Tensor, placement: Placement, dim: int) -> torch.Tensor:
    """Rows of an up factor (columns of a down factor) where they lie in the file's; zeros where others lie."""
    along = factor.shape[dim]
    total = along * placement.target_units // placement.source_units
    if placement.is_woven:
        return factor.index_select(dim, torch.from_numpy(row_map(placement, total, along)).long())
    out = factor.new_zeros(*((total, factor.shape[1]) if dim == 0 else (factor.shape[0], total)))
    for run in placement.scaled(total, along):
        out.narrow(dim, run.target, run.size).copy_(factor.narrow(dim, run.source, run.size))
    return out


def written(family, dialect, factors):
    """The adapter's tensors in a dialect: modules that the file has together are one of their common rank."""
    parts = {}
    for module, (up, down) in factors.items():
        for name in spell(module.path, dialect, *target(family), shape=module.shape):
            placed = (
                (moved(up, name.placement, 0), down)
                if name.placement.axis == "rows"
                else (up, moved(down, name.placement, 1))
            )
            parts.setdefault((name.up, name.down), []).append(placed)
    tensors = {}
    for (up_key, down_key), pairs in parts.items():
        tensors[up_key] = torch.cat([up for up, _ in pairs], 1)
        tensors[down_key] = torch.cat([down for _, down in pairs], 0)
    return tensors


def as_named(factors):
    tensors = {}
    for module, (up, down) in factors.items():
        tensors[f"{module.path}.lora_B.weight"], tensors[f"{module.path}.lora_A.weight"] = up, down
    return tensors


def composed(model: nn.Module, tensors):
    """{module: what is added to its weight}; the model is as before."""
    lora_mmap.compose(model, [(tensors, 1.0)], strict=True)
    added = {name.removesuffix(".weight"): value.clone() for name, value in model.state_dict().items()}
    lora_mmap.reset(model)
    assert not any(value.any() for value in model.state_dict().values())
    return added


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize(("family", "naming", "dialect"), list(cases()))
def test_written_and_read_back(family, naming, dialect):
    for spelling in range(family_models.spellings(family, naming)):
        modules = family_models.modules(family, naming, spelling=spelling)
        factors = family_models.factors(modules)
        tensors = written(family, dialect, factors)
        for name in dict.fromkeys((naming, "native", "diffusers")):
            if name not in family_models.namings(family) or not family_models.in_models(family, name):
                continue
            own = name == naming and family_models.is_plain(family, naming)
            model = family_models.model(family_models.modules(family, name, OTHERS, spelling if own else 0))
            found = composed(model, tensors)
            assert_same(found, composed(model, as_named(factors)))
            assert any(value.any() for value in found.values())
            if own:
                direct = {module.path: up @ down for module, (up, down) in factors.items()}
                assert_same({path: found[path] for path in direct}, direct)
