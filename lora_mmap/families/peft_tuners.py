"""The tensors of PEFT's tuners that are no LoRA and no LyCORIS, as PEFT 0.21 saves them: known, and not fused.

A tuner's prefix is in ``peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING``; its tensors are the ``adapter_layer_names`` and the
buffers of its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_PLAIN = str.maketrans("", "", "{}:*")


@dataclass(frozen=True)
class Tuner:
    """One method. Of each tensor, what follows its module's path (or, where all modules share it, ``base_model``);
    ``@`` is where PEFT puts the adapter's name, if not at the end."""

    algorithm: str
    title: str
    tensors: tuple[str, ...]

    def suffixes(self) -> Iterator[tuple[str, str]]:
        """(pattern, role) of each tensor."""
        for tensor in self.tensors:
            before, _, after = tensor.partition("@")
            yield f".{before}[.{{adapter:*}}]{after}", before + after.translate(_PLAIN)


def _tuner(algorithm: str, title: str, tensors: str) -> Tuner:
    return Tuner(algorithm, title, tuple(tensors.split()))


PEFT_TUNERS: tuple[Tuner, ...] = (
    _tuner("adalora", "AdaLoRA", "lora_E ranknum"),
    _tuner("kasa", "KaSA", "lora_diag"),
    _tuner("adamss", "AdaMSS", "adamss_A@.{i} adamss_B@.{i} adamss_newB adamss_resW"),
    _tuner("adaption_prompt", "adaption prompt", "adaption_prompt adaption_gate"),
    _tuner("beft", "BEFT", "beft_bias"),
    _tuner("c3a", "C3A", "c3a_kernel"),
    _tuner("deft", "DEFT", "deft_P deft_R"),
    _tuner("delora", "DeLoRA", "delora_A delora_B delora_lambda delora_w_norm"),
    _tuner("fourierft", "FourierFT", "fourierft_spectrum"),
    _tuner(
        "frod",
        "FRoD",
        "frod_lambda_l frod_lambda_s_values frod_V@.{kind:*} frod_s_indices@.{kind:*} frod_s_size@.{kind:*}",
    ),
    _tuner(
        "glora_peft",
        "GLoRA as PEFT writes it",
        " ".join(f"glora_{x}@.{part}" for x in "ABCDE" for part in ("Xd", "Xu", "X")),
    ),
    _tuner("gralora", "GraLoRA", "gralora_A gralora_B gralora_A_general gralora_B_general"),
    _tuner("hira", "HiRA", "hira_A hira_B hira_embedding_A hira_embedding_B"),
    _tuner("hra", "HRA", "hra_u"),
    _tuner("lily", "Lily", "lily_A@.weight lily_B@.weight lily_router@.weight"),
    _tuner("ln_tuning", "LN tuning", "ln_tuning_layers@.weight ln_tuning_layers@.bias"),
    _tuner("miss", "MiSS", "miss_block"),
    _tuner("bone", "Bone", "bone_block"),
    _tuner("oft_embedding", "OFT on an embedding", "oft_embedding_R@.weight oft_embedding_R"),
    _tuner("osf", "OSF", "osf_svd_params@.U_low osf_svd_params@.S_low osf_svd_params@.V_low"),
    _tuner(
        "peanut",
        "PEANuT",
        "peanut_A@.weight peanut_B@.weight peanut_encoders@.{i}.weight peanut_decoders@.{i}.weight",
    ),
    _tuner("poly", "Poly", "poly_lora_A poly_lora_B poly_router@.module_logits"),
    _tuner("psoft", "PSOFT", "psoft_R@.weight psoft_R@.vector_a psoft_R@.vector_b"),
    _tuner("pvera", "PVeRA", "pvera_lambda_b pvera_lambda_d pvera_A pvera_B"),
    _tuner("randlora", "RandLoRA", "randlora_lambda randlora_gamma randlora_A randlora_B"),
    _tuner("road", "RoAd", "road_theta road_alpha"),
    _tuner(
        "shadow",
        "Shadow",
        "shadow_down@.weight shadow_up@.weight shadow_update_transform@.{i}.weight shadow_update_transform@.{i}.bias "
        "shadow_update_gate@.{i}.weight shadow_update_gate@.{i}.bias",
    ),
    _tuner("shira", "SHiRA", "shira_weight shira_indices"),
    _tuner(
        "supertuning",
        "SuperTuning",
        "supertuning_values supertuning_indices supertuning_lora_A@.weight supertuning_lora_B@.weight",
    ),
    _tuner("tinylora", "TinyLoRA", "tinylora_v@.{i} tinylora_v tinylora_A tinylora_B tinylora_P"),
    _tuner("trainable_tokens", "trainable tokens", "trainable_tokens_delta token_adapter.trainable_tokens_delta"),
    _tuner(
        "unilora",
        "Uni-LoRA",
        "unilora_theta_d unilora_indices_A unilora_indices_B unilora_scales_A unilora_scales_B",
    ),
    _tuner(
        "vblora",
        "VB-LoRA",
        "vblora_vector_bank "
        + " ".join(f"vblora_logits_{x}{part}" for x in "AB" for part in ("", "_topk_indices", "_topk_weights")),
    ),
    _tuner("vera", "VeRA", "vera_lambda_b vera_lambda_d vera_A vera_B"),
    _tuner("waveft", "WaveFT", "waveft_spectrum"),
)
