"""Adapters that LyCORIS' modules make and save under the names of its wrappers, and the weights that they stand for.

LyCORIS multiplies LoHa and LoKr by alpha / rank once in its forward pass and twice in ``merge_to``; what was trained is
the forward pass, and what is compared with is made of the same parts.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .layers import layers
from .specimens import Specimen, Written, at_random, near_itself, tensors_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris import modules as lycoris_modules

_RANK, _ALPHA = 3, 2.0
_WHOLE = ("IA3Module", "FullModule", "NormModule")  # these make the merged weight themselves


def make(kind: str, layer: nn.Module, **options: Any) -> Any:
    """A LyCORIS module over ``layer``, as it is before training."""
    rank, alpha = options.pop("rank", _RANK), options.pop("alpha", _ALPHA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            if kind == "NormModule":
                return lycoris_modules.NormModule("m", layer, 1.0)
            return getattr(lycoris_modules, kind)("m", layer, 1.0, rank, alpha, **options)
        finally:
            logging.disable(logging.NOTSET)


def write(path: Path, kind: str, targets: Mapping[str, Mapping[str, Any]], prefix: str) -> Written:
    """Options of the LyCORIS module by the name of the layer; keys begin with ``prefix`` and the layer's flat name."""
    base = layers()
    generator = torch.Generator().manual_seed(6)
    tensors: dict[str, Tensor] = {}
    stems = {name: prefix + name.replace(".", "_") for name in targets}
    for name, options in targets.items():
        made = make(kind, copy.deepcopy(base.get_submodule(name)), **options)
        with torch.no_grad():
            for key, parameter in made.named_parameters():
                near_itself(parameter, generator) if key == "dora_scale" else at_random(parameter, generator)
        saved = _difference(made) if kind == "FullModule" else made.state_dict()
        tensors |= {f"{stems[name]}.{key}": value.detach().clone().contiguous() for key, value in saved.items()}
    save_file(tensors, str(path))
    read = tensors_in(path)

    def merged(model: nn.Module, strength: float) -> Mapping[str, Tensor]:
        return {
            f"{name}.{parameter}": value
            for name in targets
            for parameter, value in weights(trained.module(name, model.get_submodule(name)), strength).items()
        }

    trained = Trained(base, path, read, stems, merged, kind=kind, options=targets)
    return trained


@dataclass(frozen=True, kw_only=True)
class Trained(Written):
    """``kind`` of LyCORIS' modules, and the options of each by the layer's name."""

    kind: str
    options: Mapping[str, Mapping[str, Any]]

    def module(self, name: str, layer: nn.Module) -> Any:
        """LyCORIS' module over ``layer`` with what the file holds for it."""
        return loaded(self.kind, layer, self.use(name, 1.0).tensors, self.options[name])


def loaded(kind: str, layer: nn.Module, tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Any:
    """A LyCORIS module with the tensors of a file; its factors are fp32, or float64 as its layer."""
    made = make(kind, layer, **options)
    wide = next(layer.parameters()).dtype == torch.float64
    made.to(torch.float64 if wide else torch.float32)
    if kind == "FullModule":
        with torch.no_grad():
            made.weight.copy_(tensors["diff"])
            made.bias.copy_(tensors["diff_b"])
    else:
        made.load_state_dict(tensors)
    return made.eval()


@torch.no_grad()
def weights(module: Any, strength: float) -> dict[str, Tensor]:
    """What LyCORIS' forward pass puts in place of the layer's parameters, at the layer's dtype."""
    layer = module.org_module[0]
    if type(module).__name__ in _WHOLE:
        weight, bias = module.get_merged_weight(strength)
        found = {"weight": weight.to(layer.weight.dtype)}
        if bias is not None:
            found["bias"] = bias.to(layer.bias.dtype)
        return found
    base = layer.weight.detach()
    if isinstance(module, lycoris_modules.LoConModule):
        difference = module.make_weight().to(base.dtype) * module.scale
    else:
        difference = module.get_weight(module.shape).to(base.dtype) * module.scalar
    if module.wd:
        return {"weight": module.apply_weight_decompose(base + difference, strength).to(base.dtype)}
    return {"weight": (base + difference * strength).to(base.dtype)}


def _difference(module: Any) -> dict[str, Tensor]:
    return {"diff": module.weight, "diff_b": module.bias}


_LINEAR_AND_CONVOLUTIONS = ("inner", "line", "image", "point", "volume")
_CONVOLUTIONS = ("line", "image", "volume")


def _specimen(
    algorithm: str,
    tensors: str,
    kind: str,
    *names: str,
    prefix: str = "lycoris_",
    any_strength: bool = True,
    note: str = "",
    **options: Any,
) -> Specimen:
    def written(folder: Path) -> Written:
        return write(folder / "adapter.safetensors", kind, dict.fromkeys(names, options), prefix)

    return Specimen(algorithm, "LyCORIS", tensors, written, any_strength, note)


def _decomposed(algorithm: str, tensors: str, kind: str, *names: str, on_out: bool, **options: Any) -> Specimen:
    return _specimen(
        f"DoRA over {algorithm}, norm per {'row' if on_out else 'input channel'}",
        f"{tensors}, `dora_scale`",
        kind,
        *names,
        weight_decompose=True,
        wd_on_out=on_out,
        any_strength=False,
        note="see Strength",
        **options,
    )


_PAIR = "`lora_down`, `lora_up`, `alpha`"
_LOHA = "`hada_w1_a`, `_b`, `hada_w2_a`, `_b`, `alpha`"
_LOKR = "`lokr_w1`, `lokr_w2_a`, `_b`, `alpha`"
_FACTORED: dict[str, Any] = {"rank": 2, "alpha": 3.0}

SPECIMENS = (
    _specimen("LoCon", _PAIR, "LoConModule", *_LINEAR_AND_CONVOLUTIONS, prefix="lora_unet_"),
    _specimen("LoCon, rsLoRA", _PAIR, "LoConModule", "inner", "image", rs_lora=True),
    _specimen("LoCon in Tucker form", f"{_PAIR}, `lora_mid`", "LoConModule", *_CONVOLUTIONS, use_tucker=True),
    _specimen("LoHa", _LOHA, "LohaModule", *_LINEAR_AND_CONVOLUTIONS),
    _specimen("LoHa in Tucker form", f"{_LOHA}, `hada_t1`, `_t2`", "LohaModule", *_CONVOLUTIONS, use_tucker=True),
    _specimen("LoKr", _LOKR, "LokrModule", *_LINEAR_AND_CONVOLUTIONS, **_FACTORED),
    _specimen(
        "LoKr, both factored",
        "`lokr_w1_a`, `_b`, `lokr_w2_a`, `_b`, `alpha`",
        "LokrModule",
        "inner",
        decompose_both=True,
        **_FACTORED,
    ),
    _specimen("LoKr, both whole", "`lokr_w1`, `lokr_w2`, `alpha`", "LokrModule", "inner", "image", full_matrix=True),
    _specimen("LoKr in Tucker form", f"{_LOKR}, `lokr_t2`", "LokrModule", "image", use_tucker=True, **_FACTORED),
    _specimen("(IA)3, rows", "`weight`, `on_input` = 0", "IA3Module", "inner", "image"),
    _specimen("(IA)3, columns", "`weight`, `on_input` = 1", "IA3Module", "inner", "image", train_on_input=True),
    _specimen("full difference", "`diff`, `diff_b`", "FullModule", *_LINEAR_AND_CONVOLUTIONS),
    _specimen("normalisation", "`w_norm`, `b_norm`", "NormModule", "norm", "group"),
    *(
        _decomposed(*over, on_out=on_out, **options)
        for on_out in (True, False)
        for over, options in (
            (("LoRA", _PAIR, "LoConModule", *_LINEAR_AND_CONVOLUTIONS), {}),
            (("LoHa", _LOHA, "LohaModule", *_LINEAR_AND_CONVOLUTIONS), {}),
            (("LoKr", _LOKR, "LokrModule", *_LINEAR_AND_CONVOLUTIONS), _FACTORED),
        )
    ),
)
