"""Every known ending of an adapter key. The longest that fits wins; of two equally long ones the first in the table.

``[.{adapter:*}]`` is the name under which PEFT keeps an adapter in a model, left in the key by who saves the model's
own state dict (``.lora_A.default.weight``).
"""

from __future__ import annotations

from .peft_tuners import PEFT_TUNERS
from .tables import Suffix

_ADAPTER = "[.{adapter:*}]"


def _lora() -> list[Suffix]:
    roles = {"down": "down", "up": "up", "mid": "mid", "A": "down", "B": "up"}
    table = []
    for word in ("down", "up", "mid", "A", "B"):
        spelling = "lora_A/lora_B" if word in "AB" else "lora_down/lora_up"
        table += [
            Suffix(f".lora_{word}.weight", roles[word], "lora", spelling),
            Suffix(f".lora_{word}.{{adapter:*}}.weight", roles[word], "lora", spelling + " with adapter name"),
        ]
        if word != "mid":
            bias = f"{roles[word]}_bias"
            table.append(Suffix(f".lora_{word}{_ADAPTER}.bias", bias, "lora_bias", spelling, parameter="bias"))
    for word in ("A", "B"):
        table += [
            Suffix(f".lora_{word}", roles[word], "lora", "bare lora_A/lora_B"),
            Suffix(f".lora_{word}.{{adapter:*}}", roles[word], "lora", "bare lora_A/lora_B with adapter name"),
            Suffix(f".lora_embedding_{word}{_ADAPTER}", f"embedding_{roles[word]}", "embedding", "lora_embedding"),
        ]
    for word in ("down", "up", "mid"):
        table.append(Suffix(f".lora.{word}.weight", roles[word], "lora", "lora.down/lora.up"))
    for word in ("down", "up"):
        table += [
            Suffix(f".lora_linear_layer.{word}.weight", roles[word], "lora", "lora_linear_layer"),
            Suffix(f"_lora.{word}.weight", roles[word], "lora", "attention processor"),
            *(
                Suffix(f"_lora{n}.{word}.weight", roles[word], "lora", "xlabs processor", keep=f"_lora{n}")
                for n in (1, 2)
            ),
            # Nunchaku's converter writes factors in the order of its kernels, and no `.weight` after the name.
            Suffix(f".lora_{word}", f"packed_{word}", "nunchaku", "Nunchaku packed lora_down/lora_up"),
        ]
    return table


# Beside the factors of LoRA, LoHa or LoKr.
_SCALES = (
    Suffix(".alpha", "alpha", ""),
    Suffix(".alpha.{adapter:*}", "alpha", ""),
    Suffix(f".lora_alpha{_ADAPTER}", "alpha", ""),
    Suffix(".scalar", "scalar", "scalar"),
    Suffix(".dora_scale", "magnitude", "dora"),
    Suffix(".lora_magnitude_vector[.weight]", "magnitude", "dora_peft"),
    Suffix(".lora_magnitude_vector.{adapter:*}[.weight]", "magnitude", "dora_peft"),
)

_LYCORIS = (
    *(Suffix(f".hada_{w}_{x}{_ADAPTER}", f"{w}_{x}", "loha", "hada") for w in ("w1", "w2") for x in "ab"),
    *(Suffix(f".hada_t{n}{_ADAPTER}", f"t{n}", "loha", "hada") for n in (1, 2)),
    *(Suffix(f".lokr_{w}{_ADAPTER}", w, "lokr", "lokr") for w in ("w1", "w2")),
    *(Suffix(f".lokr_{w}_{x}{_ADAPTER}", f"{w}_{x}", "lokr", "lokr") for w in ("w1", "w2") for x in "ab"),
    *(Suffix(f".lokr_t{n}{_ADAPTER}", f"t{n}", "lokr", "lokr") for n in (1, 2)),
    *(Suffix(f".{x}.weight", x, "glora", "a1/a2/b1/b2") for x in ("a1", "a2", "b1", "b2", "bm")),
    Suffix(".oft_blocks", "oft_blocks", "oft", "oft_blocks"),
    Suffix(".oft_diag", "oft_diag", "oft", "oft_diag"),
    Suffix(".rescale", "rescale", "oft"),
    Suffix(".on_input", "on_input", "ia3", "weight/on_input"),
    Suffix(".q_layer.weight", "q_layer", "tlora", "q_layer/p_layer"),
    Suffix(".p_layer.weight", "p_layer", "tlora", "q_layer/p_layer"),
    Suffix(".lambda_layer", "lambda_layer", "tlora", "q_layer/p_layer"),
    *(Suffix(f".bias_{x}", f"bias_{x}", "sparse_bias", parameter="bias") for x in ("indices", "values", "size")),
)

_PEFT = (
    Suffix(f".oft_R{_ADAPTER}.weight", "oft_r", "oft_peft", "oft_R"),
    Suffix(f".oft_R{_ADAPTER}", "oft_r", "oft_peft", "oft_R"),
    Suffix(f".boft_R{_ADAPTER}", "boft_r", "boft_peft", "boft_R"),
    Suffix(f".boft_s{_ADAPTER}", "boft_s", "boft_peft", "boft_R"),
    Suffix(f".ia3_l{_ADAPTER}", "ia3", "ia3_peft", "ia3_l"),
    *(
        Suffix(pattern, role, tuner.algorithm, tuner.title)
        for tuner in PEFT_TUNERS
        for pattern, role in tuner.suffixes()
    ),
)

# Parameters as they shall be, or what is added to them as it is.
_WHOLE = (
    Suffix(".diff", "diff", "full", "diff"),
    Suffix(".diff_b", "diff_bias", "full", "diff", parameter="bias"),
    Suffix(".diff_m", "diff_modulation", "full", "diff", parameter="modulation"),
    Suffix(".w_norm", "diff", "norm", "w_norm/b_norm"),
    Suffix(".b_norm", "diff_bias", "norm", "w_norm/b_norm", parameter="bias"),
    Suffix(".set_weight", "set", "set", "set_weight"),
    Suffix(".reshape_weight", "reshape", "reshape"),
    Suffix(f".modules_to_save{_ADAPTER}.weight", "whole", "whole", "modules_to_save"),
    Suffix(f".modules_to_save{_ADAPTER}.bias", "whole_bias", "whole", "modules_to_save", parameter="bias"),
    # PEFT's own copies of what it wraps: written with bias="all", or where a resized embedding is saved.
    Suffix(".original_module.weight", "original", "original"),
    Suffix(".original_module.bias", "original_bias", "original", parameter="bias"),
    Suffix("[.base_layer].weight", "whole", "whole"),
    Suffix("[.base_layer].bias", "whole_bias", "whole", parameter="bias"),
    Suffix(".scale", "set", "set", "scale", parameter="scale"),  # of the normalisations in BFL's control LoRAs
    # Control-LoRA: a whole ControlNet, its matrices as factors of their difference to the UNet's.
    Suffix(".up", "control_up", "control_lora", "Control-LoRA"),
    Suffix(".down", "control_down", "control_lora", "Control-LoRA"),
)

SUFFIXES: tuple[Suffix, ...] = (*_lora(), *_SCALES, *_LYCORIS, *_PEFT, *_WHOLE)
