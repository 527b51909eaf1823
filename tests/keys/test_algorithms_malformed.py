"""Tensors that do not make an adapter of their algorithm: the message names the tensors, what is there and what is
expected."""

import pytest
import torch
from recognised_groups import groups_of, module, only

LOHA = {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)}
LOHA_TUCKER = {
    "hada_w1_a": (2, 12),
    "hada_w1_b": (2, 8),
    "hada_w2_a": (2, 12),
    "hada_w2_b": (2, 8),
    "hada_t1": (2, 2, 3, 3),
    "hada_t2": (2, 2, 3, 3),
}
LOKR = {"lokr_w1": (3, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)}
LOKR_TUCKER = {"lokr_w1": (3, 2), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 4), "lokr_t2": (2, 2, 3, 3)}
GLORA = {"a1__weight": (8, 2), "a2__weight": (2, 8), "b1__weight": (12, 2), "b2__weight": (2, 8)}
LORA = {"lora_A__weight": (2, 8), "lora_B__weight": (12, 2)}
TUCKER = {"lora_down__weight": (2, 8, 1, 1), "lora_mid__weight": (2, 2, 3, 3), "lora_up__weight": (12, 2, 1, 1)}
EMBEDDING = {"lora_embedding_A": (2, 20), "lora_embedding_B": (8, 2)}
TLORA = {"q_layer__weight": (2, 8), "p_layer__weight": (12, 2), "lambda_layer": (1, 2)}

# Each: (a good group, what is changed in it, words of the message); None takes a tensor away.
FAULTS = {
    "LoHa: half missing": (LOHA, {"hada_w2_a": None}, ["m.hada_w1_a", "no w2_a"]),
    "LoHa: one tensor": (LOHA, dict.fromkeys(("hada_w1_b", "hada_w2_a", "hada_w2_b")), ["m.hada_w1_a", "no w1_b"]),
    "LoHa: ranks": (LOHA, {"hada_w1_b": (3, 8)}, ["m.hada_w1_a' [12, 2]", "m.hada_w1_b' [3, 8]", "rank 2", "rank 3"]),
    "LoHa: rows": (LOHA, {"hada_w2_a": (10, 2)}, ["m.hada_w1_a' [12, 2]", "m.hada_w2_a' [10, 2]", "rows 12"]),
    "LoHa: columns": (LOHA, {"hada_w2_b": (2, 9)}, ["m.hada_w1_b' [2, 8]", "m.hada_w2_b' [2, 9]", "columns 8"]),
    "LoHa: dimensions": (LOHA, {"hada_w1_a": (12, 2, 1, 1)}, ["m.hada_w1_a", "[12, 2, 1, 1]", "2 dimensions"]),
    "LoHa: empty": (LOHA, {"hada_w1_a": (12, 0), "hada_w1_b": (0, 8)}, ["m.hada_w1_a' [12, 0]", "at least 1"]),
    "LoHa: one core": (LOHA_TUCKER, {"hada_t2": None}, ["m.hada_w2_a", "no t2"]),
    "LoHa: core": (LOHA_TUCKER, {"hada_t1": (3, 2, 3, 3)}, ["m.hada_w1_a' [2, 12]", "m.hada_t1' [3, 2, 3, 3]"]),
    "LoKr: no w2": (LOKR, {"lokr_w2_a": None, "lokr_w2_b": None}, ["m.lokr_w1", "no w2"]),
    "LoKr: no w1": (LOKR, {"lokr_w1": None}, ["m.lokr_w2_a", "no w1"]),
    "LoKr: half a factor": (LOKR, {"lokr_w2_b": None}, ["m.lokr_w1", "no w2_b"]),
    "LoKr: ranks": (LOKR, {"lokr_w2_b": (3, 4)}, ["m.lokr_w2_a' [4, 2]", "m.lokr_w2_b' [3, 4]"]),
    "LoKr: whole and in factors": (LOKR, {"lokr_w2": (4, 4)}, ["m.lokr_w2' [4, 4]", "m.lokr_w2_a' [4, 2]"]),
    "LoKr: w1 of a convolution": (LOKR, {"lokr_w1": (3, 2, 3, 3)}, ["m.lokr_w1", "[3, 2, 3, 3]", "2 dimensions"]),
    "LoKr: core": (LOKR_TUCKER, {"lokr_t2": (2, 3, 3, 3)}, ["m.lokr_w2_b' [2, 4]", "m.lokr_t2' [2, 3, 3, 3]"]),
    "GLoRA: missing": (GLORA, {"b1__weight": None}, ["m.a1.weight", "no b1"]),
    "GLoRA: ranks": (GLORA, {"a2__weight": (3, 8)}, ["m.a1.weight' [8, 2]", "m.a2.weight' [3, 8]", "rank"]),
    "GLoRA: inputs": (GLORA, {"a1__weight": (7, 2)}, ["m.a1.weight' [7, 2]", "m.a2.weight' [2, 8]", "inputs 7"]),
    "GLoRA: inputs of b": (GLORA, {"b2__weight": (2, 9)}, ["m.a2.weight' [2, 8]", "m.b2.weight' [2, 9]"]),
    "OFT: not square": ({"oft_blocks": (3, 4, 5)}, {}, ["m.oft_blocks' [3, 4, 5]", "sides 5", "sides 4"]),
    "OFT: two dimensions": ({"oft_blocks": (3, 4)}, {}, ["m.oft_blocks", "[3, 4]", "3 or 4 dimensions"]),
    "OFT: rescale": (
        {"oft_blocks": (3, 4, 4), "rescale": (11, 1)},
        {},
        ["m.rescale", "[11, 1]", "[12, 1]", "m.oft_blocks' [3, 4, 4]"],
    ),
    "OFT: only rescale": ({"rescale": (12, 1)}, {}, ["m.rescale", "no oft_blocks"]),
    "OFT of PEFT: no triangle": ({"oft_R__weight": (3, 7)}, {}, ["m.oft_R.weight' [3, 7]", "b * (b - 1) / 2"]),
    "BOFT of PEFT: no rows": ({"boft_R": (1, 3, 4, 4)}, {}, ["m.boft_R", "no boft_s"]),
    "(IA)3: no weight": ({"on_input": ()}, {}, ["m.on_input", "no weight"]),
    "(IA)3: a matrix": ({"weight": (4, 5), "on_input": ()}, {}, ["m.weight", "[4, 5]", "a vector"]),
    "(IA)3: two flags": ({"weight": (4,), "on_input": (2,)}, {}, ["m.on_input", "one element"]),
    "(IA)3 of PEFT: a matrix": ({"ia3_l": (4, 5)}, {}, ["m.ia3_l", "[4, 5]", "a vector"]),
    "Tucker: mid": (TUCKER, {"lora_mid__weight": (2, 3, 3, 3)}, ["m.lora_down.weight' [2, 8, 1, 1]", "[2, 3, 3, 3]"]),
    "Tucker: kernel": (
        TUCKER,
        {"lora_down__weight": (2, 8, 3, 3)},
        ["m.lora_down.weight", "kernel", "m.lora_mid.weight"],
    ),
    "Tucker: no up": (TUCKER, {"lora_up__weight": None}, ["m.lora_down.weight", "no up"]),
    "Tucker: only mid": (
        TUCKER,
        {"lora_up__weight": None, "lora_down__weight": None},
        ["m.lora_mid.weight", "neither a down nor an up"],
    ),
    "DoRA: rows": (LORA, {"dora_scale": (11, 1)}, ["m.dora_scale", "[11, 1]", "[12, 1]", "[1, 8]"]),
    "DoRA: columns": (LORA, {"dora_scale": (1, 9)}, ["m.dora_scale", "[1, 9]", "[1, 8]"]),
    "DoRA: a matrix": (LORA, {"dora_scale": (12, 8)}, ["m.dora_scale", "[12, 8]"]),
    "DoRA: alone": ({"dora_scale": (12, 1)}, {}, ["m.dora_scale", "neither a down nor an up"]),
    "DoRA of PEFT: columns": (LORA, {"lora_magnitude_vector": (8,)}, ["m.lora_magnitude_vector", "[8]", "[12]"]),
    "DoRA over LoHa": (LOHA, {"dora_scale": (7, 1)}, ["m.dora_scale", "[7, 1]", "[12, 1]"]),
    "bias: rows": (LORA, {"lora_B__bias": (8,)}, ["m.lora_B.bias", "[8]", "[12]"]),
    "bias: a matrix": (LORA, {"lora_B__bias": (12, 1)}, ["m.lora_B.bias", "[12, 1]", "1 dimensions"]),
    "bias: alone": ({"lora_B__bias": (12,)}, {}, ["m.lora_B.bias", "neither a down nor an up"]),
    "difference of another bias": (LORA, {"diff_b": (8,)}, ["m.diff_b", "[8]", "[12]"]),
    "differences of another module": ({"diff": (12, 8), "diff_b": (9,)}, {}, ["m.diff_b", "[9]", "[12]"]),
    "norms of other sizes": ({"w_norm": (12,), "b_norm": (8,)}, {}, ["m.b_norm", "[8]", "[12]"]),
    "a difference of nothing": ({"diff": ()}, {}, ["m.diff", "[]", "1 to 5 dimensions"]),
    "sparse bias: half": (LORA, {"bias_values": (3,), "bias_size": (1,)}, ["m.bias_values", "no bias_indices"]),
    "sparse bias: entries": (
        LORA,
        {"bias_values": (3,), "bias_indices": (1, 4), "bias_size": (1,)},
        ["m.bias_indices' [1, 4]", "m.bias_values' [3]"],
    ),
    "embedding: half": (EMBEDDING, {"lora_embedding_B": None}, ["m.lora_embedding_A", "no embedding_up"]),
    "embedding: ranks": (EMBEDDING, {"lora_embedding_B": (8, 3)}, ["m.lora_embedding_A' [2, 20]", "[8, 3]"]),
    "T-LoRA: lambda": (TLORA, {"lambda_layer": (1, 3)}, ["m.lambda_layer", "[1, 3]", "[1, 2]"]),
    "AdaLoRA: singular values": (LORA, {"lora_E": (3, 1)}, ["m.lora_E", "[3, 1]", "[2, 1]"]),
    "KaSA: diagonal": (LORA, {"lora_diag": (3,)}, ["m.lora_diag", "[3]", "[2]"]),
    "Nunchaku: ranks": (
        {"lora_down": (8, 16), "lora_up": (12, 32)},
        {},
        ["m.lora_down' [8, 16]", "m.lora_up' [12, 32]"],
    ),
    "two algorithms": (LORA | LOHA, {}, ["m.lora_A.weight", "LoRA", "m.hada_w1_a", "LoHa"]),
    "a scalar alone": ({"scalar": ()}, {}, ["m.scalar", "neither a down nor an up"]),
    "integers": (LOHA, {"hada_w1_a": torch.ones(12, 2, dtype=torch.int32)}, ["m.hada_w1_a", "I32", "F16"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_hold_together(fault):
    good, changes, words = FAULTS[fault]
    shapes = {ending: shape for ending, shape in (good | changes).items() if shape is not None}
    found = only(module(**shapes))
    assert found.kind == "malformed"
    for word in words:
        assert word in found.reason


@pytest.mark.parametrize("good", [LOHA, LOHA_TUCKER, LOKR, LOKR_TUCKER, GLORA, TUCKER, EMBEDDING, TLORA])
def test_the_groups_that_the_faults_are_made_from_are_good(good):
    assert only(module(**good)).kind in ("supported", "unsupported")


def test_an_alpha_that_is_not_finite():
    found = only({**module(**LOHA), "m.alpha": torch.tensor(float("nan"))})
    assert found.kind == "malformed"
    assert "alpha" in found.reason
    assert "nan" in found.reason


def test_a_flag_of_several_elements_does_not_spoil_the_other_modules():
    tensors = module(weight=(4,), on_input=(2,)) | {"n.weight": torch.ones(4), "n.on_input": torch.tensor(0)}
    groups = groups_of(tensors)
    assert groups["m"].kind == "malformed"
    assert groups["n"].forms == {"weight": (4, None)}
