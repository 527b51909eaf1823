"""Flux.1, Qwen-Image, Z-Image and SDXL at a few channels: diffusers' classes, the same with projections fused, and the
published (ComfyUI's) module tree; all three hold the same weights."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import diffusers
import torch
from spelled.native_transformers import NATIVE, Place
from spelled.native_unets import native_unet
from spelled.published import matrices
from stand_ins import holding
from torch import nn

WIDTH = 16
_TOGETHER = {
    "to_q": ("to_qkv", 0),
    "to_k": ("to_qkv", 1),
    "to_v": ("to_qkv", 2),
    "add_q_proj": ("to_added_qkv", 0),
    "add_k_proj": ("to_added_qkv", 1),
    "add_v_proj": ("to_added_qkv", 2),
}
_CROSS = {"to_q": ("to_q", 0), "to_k": ("to_kv", 0), "to_v": ("to_kv", 1)}


class Home(NamedTuple):
    """Where all rows of one of diffusers' modules are in a model; ``swapped``: the second half first."""

    module: str
    begin: int
    rows: int
    swapped: bool = False

    @property
    def weight(self) -> str:
        return f"{self.module}.weight"

    def of(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Its rows among a model's parameters, in diffusers' order."""
        section = state[self.weight][self.begin : self.begin + self.rows]
        return section.roll(self.rows // 2, 0) if self.swapped else section


Homes = dict[str, Home]  # by diffusers' module


class Family(NamedTuple):
    """How a family is made; ``places`` are those of the published model, whose rows are counted at ``width``."""

    make: Callable[[], nn.Module]
    places: Callable[[nn.Module], Mapping[str, Place]]
    width: int = WIDTH


def _flux() -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=6,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )


def _qwen_image() -> nn.Module:
    return diffusers.QwenImageTransformer2DModel(
        in_channels=8,
        out_channels=2,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
    )


def _z_image() -> nn.Module:
    return diffusers.ZImageTransformer2DModel(
        in_channels=2,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=2,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=12,
        axes_dims=[2, 2, 4],
    )


def _sdxl() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(4, 8, WIDTH),
        norm_num_groups=2,
        transformer_layers_per_block=[1, 1, 2],
        attention_head_dim=[2, 2, 4],
        cross_attention_dim=10,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=34,
    )


FAMILIES = {
    "flux": Family(_flux, lambda _: NATIVE["flux"], 3072),
    "qwen_image": Family(_qwen_image, lambda model: {module: Place(module) for module in matrices(model)}),
    "z_image": Family(_z_image, lambda _: NATIVE["z_image"], 3840),
    "sdxl": Family(
        _sdxl, lambda model: {own: Place(native) for own, native in native_unet("sdxl", matrices(model)).items()}
    ),
}
FORMS = {  # of Z-Image, diffusers fuses nothing; of Qwen-Image, the published names are diffusers'
    "flux": ("split", "fused", "published"),
    "qwen_image": ("split", "fused"),
    "z_image": ("split", "published"),
    "sdxl": ("split", "fused", "published"),
}


@cache
def built(name: str, form: str) -> tuple[nn.Module, Homes]:
    """The model, with the same weights in every form, and where in it diffusers' modules are. Made once: copy it."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FAMILIES[name].make()
    shapes = matrices(model)
    if form == "split":
        return model, {module: Home(module, 0, shape[0]) for module, shape in shapes.items()}
    if form == "fused":
        return _fused(model), {module: _fused_home(module, shape[0]) for module, shape in shapes.items()}
    homes = _published_homes(name, model)
    return _published(model, homes), homes


def _published_homes(name: str, model: nn.Module) -> Homes:
    family = FAMILIES[name]
    places = family.places(model)
    return {
        module: Home(
            places[module].module,
            places[module].rows[0] * WIDTH // family.width if places[module].rows else 0,
            shape[0],
            places[module].permuted,
        )
        for module, shape in matrices(model).items()
    }


def _fused(model: nn.Module) -> nn.Module:
    """Fused as diffusers does; Qwen-Image's own method passes its attentions over, theirs does not."""
    for module in model.modules():
        if hasattr(module, "fuse_projections"):
            module.fuse_projections()
    return model


def _fused_home(module: str, rows: int) -> Home:
    parent, _, leaf = module.rpartition(".")
    table = _CROSS if parent.endswith("attn2") else _TOGETHER
    if "attn" not in parent or leaf not in table:
        return Home(module, 0, rows)
    whole, part = table[leaf]
    return Home(f"{parent}.{whole}", part * rows, rows)


def _published(model: nn.Module, homes: Homes) -> nn.Module:
    """The weights of ``model`` under the published names."""
    stacked: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for module, home in homes.items():
        weight = model.get_submodule(module).weight.detach()
        stacked.setdefault(home.module, []).append(
            (home.begin, weight.roll(home.rows // 2, 0) if home.swapped else weight)
        )
    return holding(
        {
            f"{name}.weight": torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])])
            for name, parts in stacked.items()
        }
    )
