"""Every known ending of an adapter key, more specific spellings first (the first of two equally long ones wins)."""

from __future__ import annotations

from .tables import Suffix


def _lora() -> list[Suffix]:
    roles = {"down": "down", "up": "up", "mid": "mid", "A": "down", "B": "up"}
    table = []
    for word in ("down", "up", "mid", "A", "B"):
        spelling = "lora_A/lora_B" if word in "AB" else "lora_down/lora_up"
        table += [
            Suffix(f".lora_{word}.weight", roles[word], "lora", spelling),
            Suffix(f".lora_{word}.bias", f"{roles[word]}_bias", "lora_bias", spelling),
            Suffix(f".lora_{word}.{{adapter:*}}.weight", roles[word], "lora", spelling + " with adapter name"),
            Suffix(f".lora_{word}.{{adapter:*}}.bias", f"{roles[word]}_bias", "lora_bias", spelling),
        ]
    for word in ("A", "B"):
        table += [
            Suffix(f".lora_{word}", roles[word], "lora", "bare lora_A/lora_B"),
            Suffix(f".lora_{word}.{{adapter:*}}", roles[word], "lora", "bare lora_A/lora_B with adapter name"),
            Suffix(f".lora_embedding_{word}", f"embedding_{roles[word]}", "lora_embedding", "lora_embedding"),
            Suffix(f".lora_embedding_{word}.{{adapter:*}}", f"embedding_{roles[word]}", "lora_embedding"),
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
        ]
    return table


SUFFIXES: tuple[Suffix, ...] = (
    *_lora(),
    Suffix(".alpha", "alpha", ""),
    Suffix(".lora_alpha", "alpha", ""),
    Suffix(".alpha.{adapter:*}", "alpha", ""),
    Suffix(".lora_magnitude_vector", "magnitude", "dora"),
    Suffix(".lora_magnitude_vector.weight", "magnitude", "dora"),
    Suffix(".lora_magnitude_vector.{adapter:*}.weight", "magnitude", "dora"),
    Suffix(".lora_magnitude_vector.{adapter:*}", "magnitude", "dora"),
    Suffix(".dora_scale", "magnitude", "dora"),
    *(Suffix(f".hada_{w}_{x}", f"{w}_{x}", "loha") for w in ("w1", "w2") for x in "ab"),
    *(Suffix(f".hada_t{n}", f"t{n}", "loha") for n in (1, 2)),
    *(Suffix(f".lokr_{w}", w, "lokr") for w in ("w1", "w2")),
    *(Suffix(f".lokr_{w}_{x}", f"{w}_{x}", "lokr") for w in ("w1", "w2") for x in "ab"),
    *(Suffix(f".lokr_t{n}", f"t{n}", "lokr") for n in (1, 2)),
    *(Suffix(f".{x}.weight", x, "glora") for x in ("a1", "a2", "b1", "b2", "bm")),
    Suffix(".oft_blocks", "oft_blocks", "oft"),
    Suffix(".oft_diag", "oft_diag", "oft"),
    Suffix(".rescale", "rescale", "oft"),
    Suffix(".oft_R.weight", "oft_r", "oft_peft"),
    Suffix(".oft_R.{adapter:*}.weight", "oft_r", "oft_peft"),
    Suffix(".boft_R", "boft_r", "boft_peft"),
    Suffix(".boft_s", "boft_s", "boft_peft"),
    Suffix(".diff", "diff", "full"),
    Suffix(".diff_b", "diff_bias", "full"),
    Suffix(".diff_m", "diff_modulation", "full"),
    Suffix(".w_norm", "diff", "norm"),
    Suffix(".b_norm", "diff_bias", "norm"),
    Suffix(".set_weight", "set", "set"),
    Suffix(".reshape_weight", "reshape", "reshape"),
    Suffix(".on_input", "on_input", "ia3"),
    Suffix(".ia3_l", "ia3", "ia3"),
    *(Suffix(f".bias_{x}", f"bias_{x}", "sparse_bias") for x in ("indices", "values", "size")),
    Suffix(".scalar", "scalar", "scalar"),
    Suffix(".vera_lambda_b", "lambda_b", "vera"),
    Suffix(".vera_lambda_d", "lambda_d", "vera"),
)

# Algorithms whose tensors are recognised and whose arithmetic is not here yet: never fused as if they were plain LoRA.
UNSUPPORTED: dict[str, str] = {
    "lora_bias": "LoRA with a trained bias (lora_bias)",
    "lora_embedding": "LoRA on an embedding",
    "lora_mid": "LoRA in Tucker form (lora_mid)",
    "dora": "DoRA (magnitude vector)",
    "loha": "LoHa",
    "lokr": "LoKr",
    "glora": "GLoRA",
    "oft": "OFT",
    "oft_peft": "OFT as PEFT writes it",
    "boft_peft": "BOFT as PEFT writes it",
    "full": "full difference (diff)",
    "norm": "norm difference (w_norm, b_norm)",
    "set": "set weight",
    "reshape": "reshaped weight",
    "ia3": "(IA)3",
    "sparse_bias": "LyCORIS sparse bias",
    "scalar": "LyCORIS scalar",
    "vera": "VeRA",
}
