"""Wan Animate's pose, motion and face parts (ComfyUI's and the checkpoint's names <-> diffusers)."""

from __future__ import annotations

from .tables import Weights, rows, same

_FUSER, _FACE = "face_adapter.fuser_blocks.{i}.", "face_adapter.{i}."
_CONVS, _MOTION = "motion_encoder.enc.net_app.convs.", "motion_encoder."
_RESIDUAL_BLOCKS = 7


def _residual(number: int) -> tuple[Weights, ...]:
    """One residual block of the motion encoder: the checkpoint counts the first convolution with them."""
    native, diffusers = f"{_CONVS}{number + 1}.", f"{_MOTION}res_blocks.{number}."
    return (
        same(native=native + "conv1.0", diffusers=diffusers + "conv1"),
        same(native=native + "conv1.1", diffusers=diffusers + "conv1.act_fn"),
        same(native=native + "conv2.1", diffusers=diffusers + "conv2"),
        same(native=native + "conv2.2", diffusers=diffusers + "conv2.act_fn"),
        same(native=native + "skip.1", diffusers=diffusers + "conv_skip"),
    )


ANIMATE: tuple[Weights, ...] = (
    same(native="pose_patch_embedding", diffusers="pose_patch_embedding"),
    same(native=_FUSER + "linear1_q", diffusers=_FACE + "to_q"),
    rows("k v", native={_FUSER + "linear1_kv": "k v"}, diffusers={_FACE + "to_k": "k", _FACE + "to_v": "v"}),
    same(native=_FUSER + "linear2", diffusers=_FACE + "to_out"),
    same(native=_FUSER + "q_norm", diffusers=_FACE + "norm_q"),
    same(native=_FUSER + "k_norm", diffusers=_FACE + "norm_k"),
    same(native="face_encoder.conv1_local.conv", diffusers="face_encoder.conv1_local"),
    same(native="face_encoder.conv2.conv", diffusers="face_encoder.conv2"),
    same(native="face_encoder.conv3.conv", diffusers="face_encoder.conv3"),
    same(native="face_encoder.out_proj", diffusers="face_encoder.out_proj"),
    same(native="face_encoder.padding_tokens", diffusers="face_encoder.padding_tokens"),
    same(native=_CONVS + "0.0", diffusers=_MOTION + "conv_in"),
    same(native=_CONVS + "0.1", diffusers=_MOTION + "conv_in.act_fn"),
    *(weights for number in range(_RESIDUAL_BLOCKS) for weights in _residual(number)),
    same(native=_CONVS + "8", diffusers=_MOTION + "conv_out"),
    same(native=_MOTION + "enc.fc.{i}", diffusers=_MOTION + "motion_network.{i}"),
    same(native=_MOTION + "dec.direction", diffusers=_MOTION + "motion_synthesis_weight"),
)
