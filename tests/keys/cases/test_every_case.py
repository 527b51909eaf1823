"""The nasty cases of adapter keys by number, and that each of them has a test here: ``test_case_17_...`` is case 17."""

import re
from pathlib import Path

CASES = {
    1: "Flux.1: linear1 of a single block is q, k, v and the MLP's first layer",
    2: "USO: qkv_lora of a single block is the first three widths of linear1",
    3: "USO: proj_lora of a single block is all of linear2",
    4: "Nunchaku Flux.1: proj_out of a single block is split by columns",
    5: "Flux.1, Flux.2, SD3, HunyuanVideo: halves of the final modulation change places",
    6: "Nunchaku Flux.1: rows of the modulation are interleaved by 6 and by 3",
    7: "Nunchaku Z-Image: w3 is the first half of the fused MLP, w1 the second",
    8: "Z-Image by kohya: to_out_0 is to_out.0, natively out",
    9: "Z-Image by kohya: adaLN_modulation_0 is adaLN_modulation.0",
    10: "Z-Image converted for ComfyUI: qkv of rank 3r with a block-diagonal up factor",
    11: "two underscores after lora_unet",
    12: "Wan: underscores and dots in one path",
    13: "TheLastBen's Flux.1: an underscore before the ending",
    14: "Wan: diff_m is for the parameter modulation",
    15: "Wan: diff of a norm",
    16: "Wan 2.2: what its models lack is absent, not unknown",
    17: "OneTrainer Flux.1: numbered parts of qkv and linear1",
    18: "te2 and te3: T5 or CLIP-G",
    19: "CLIP-L without text_model",
    20: "CLIP-G: text_projection",
    21: "PEFT's DoRA: lora_magnitude_vector with and without .weight",
    22: "DoRA: the shape of dora_scale tells the axis",
    23: "LoKr: scale 1 where both factors are whole",
    24: "OFT and BOFT: told by dimensions, alpha is a constraint",
    25: "(IA)3 of LyCORIS: weight beside on_input",
    26: "LyCORIS: w_norm of a group norm",
    27: "bias of a pair; BFL's control LoRAs set the scale of a norm",
    28: "BFL's control LoRAs: img_in has to be widened first",
    29: "Lumina 2: q, k and v of unequal size under Z-Image's names",
    30: "Qwen-Image: lora.down and lora.up",
    31: "PEFT: the adapter's name in the key",
    32: "attention processors: to_out_lora is to_out.0",
    33: "Z-Image: the key 2-1 of a ModuleDict",
    34: "MiniMax-H3: halves of the MLP change places; DiffSynth's qkv is interleaved by heads",
}


def test_every_case_has_a_test():
    here = Path(__file__).parent
    found = {
        int(number)
        for path in here.glob("test_*.py")
        for number in re.findall(r"^def test_case_(\d\d)_", path.read_text(encoding="utf-8"), re.M)
    }
    assert found == set(CASES)
