"""Every algorithm of LyCORIS, in the tensors that LyCORIS itself saves."""

import warnings

import pytest
import torch
from recognised_groups import FUSED, only
from torch import nn

from lora_mmap.pairing import Pair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modules = pytest.importorskip("lycoris.modules")

RANK, ALPHA = 4, 2.0


def base(kind):
    return nn.Linear(40, 32) if kind == "linear" else nn.Conv2d(8, 32, 3)


def saved(algorithm, kind="linear", **options):
    """The tensors of one LyCORIS module over a layer of 32 outputs, as LyCORIS saves them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = getattr(modules, algorithm)("m", base(kind), 1.0, RANK, ALPHA, **options)
    tensors = layer.custom_state_dict() if hasattr(layer, "custom_state_dict") else layer.state_dict()
    return {f"lycoris_m.{name}": value.detach().clone() for name, value in (tensors or layer.state_dict()).items()}


@pytest.mark.parametrize(
    ("algorithm", "kind", "options", "name", "form", "rank", "scale"),
    [
        ("LohaModule", "linear", {}, "loha", (32, 40), RANK, 0.5),
        ("LohaModule", "conv", {}, "loha", (32, 72), RANK, 0.5),
        ("LohaModule", "conv", {"use_tucker": True}, "loha", (32, 72), RANK, 0.5),
        ("LohaModule", "linear", {"rs_lora": True}, "loha", (32, 40), RANK, 1.0),
        ("LokrModule", "linear", {"factor": 2}, "lokr", (32, 40), RANK, 0.5),
        ("LokrModule", "linear", {"full_matrix": True}, "lokr", (32, 40), None, 1.0),
        ("LokrModule", "conv", {"factor": 2}, "lokr", (32, 72), RANK, 0.5),
        ("LokrModule", "conv", {"factor": 2, "use_tucker": True}, "lokr", (32, 72), RANK, 0.5),
        ("LoConModule", "conv", {"use_tucker": True}, "tucker", (32, 72), RANK, 0.5),
        ("GLoRAModule", "linear", {}, "glora", (32, 40), RANK, 0.5),
        ("GLoRAModule", "conv", {}, "glora", (32, 72), RANK, 0.5),
        ("DiagOFTModule", "linear", {"constraint": 3}, "oft", (32, None), None, None),
        ("DiagOFTModule", "conv", {"rescaled": True}, "oft", (32, None), None, None),
        ("ButterflyOFTModule", "linear", {}, "boft", (32, None), None, None),
        ("IA3Module", "linear", {}, "ia3", (32, None), None, None),
        ("IA3Module", "linear", {"train_on_input": True}, "ia3", (None, 40), None, None),
        ("IA3Module", "conv", {}, "ia3", (32, None), None, None),
        ("TLoraModule", "linear", {}, "tlora", (32, 40), RANK, 0.5),
    ],
)
def test_what_lycoris_saves(algorithm, kind, options, name, form, rank, scale):
    found = only(saved(algorithm, kind, **options))
    assert (found.kind, found.algorithm) == ("supported" if name in FUSED else "unsupported", name)
    assert found.forms == {"weight": form}
    assert (found.rank, found.scale) == (rank, scale)
    assert ("not supported yet" in found.reason) == (name not in FUSED)


@pytest.mark.parametrize("rs_lora", [False, True])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_lora_and_locon_are_plain_pairs(kind, rs_lora):
    """rsLoRA is folded into the alpha that LyCORIS saves: alpha / rank is right for both."""
    found = only(saved("LoConModule", kind, rs_lora=rs_lora))
    assert isinstance(found, Pair)
    assert (found.rows, found.cols, found.rank) == (32, 40 if kind == "linear" else 72, RANK)
    assert found.scale == (1.0 if rs_lora else 0.5)


def test_dylora_is_saved_as_a_plain_pair():
    assert isinstance(only(saved("DyLoraModule", block_size=2)), Pair)


@pytest.mark.parametrize(("on_out", "axis"), [(True, "norm per output row"), (False, "norm per input column")])
@pytest.mark.parametrize("algorithm", ["LoConModule", "LohaModule", "LokrModule"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_axis_of_dora(algorithm, kind, on_out, axis):
    found = only(saved(algorithm, kind, weight_decompose=True, wd_on_out=on_out))
    assert found.algorithm == "dora"
    assert found.detail.endswith(axis)
    assert found.detail.startswith(
        {"LoConModule": "norm", "LohaModule": "over LoHa", "LokrModule": "over LoKr"}[algorithm]
    )
    assert found.forms == {"weight": (32, 40 if kind == "linear" else 72)}


def test_a_full_difference_of_weight_and_bias():
    layer = base("linear")
    found = only({"m.diff": torch.ones_like(layer.weight), "m.diff_b": torch.ones_like(layer.bias)})
    assert (found.algorithm, found.scale, found.scale_source) == ("full", 1.0, "added as it is")
    assert found.forms == {"weight": (32, 40), "bias": (32, 1)}


def test_a_normalisation():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = modules.NormModule("m", nn.LayerNorm(16), 1.0)
    found = only({f"lycoris_m.{name}": value for name, value in layer.state_dict().items()})
    assert found.algorithm == "norm"
    assert found.forms == {"weight": (16, 1), "bias": (16, 1)}


def test_alpha_bounds_an_oft_and_does_not_scale_it():
    found = only(saved("DiagOFTModule", constraint=3))
    assert found.scale is None
    assert "constraint 3" in found.detail


def test_the_alpha_of_whole_lokr_factors_counts_for_nothing():
    tensors = saved("LokrModule", full_matrix=True)
    tensors["lycoris_m.alpha"] = torch.tensor(1e10)
    found = only(tensors)
    assert (found.scale, found.scale_source) == (1.0, "1 for whole factors")
