"""What models built on Wan add to be told more: references, cameras, poses, audio, frame rates. Only the checkpoints'
own names are known (ComfyUI keeps them); diffusers' Helios and AnyFlow add theirs to Wan's."""

from __future__ import annotations

from .tables import Weights, same

_AUDIO_BLOCK = "blocks.{i}.audio_cross_attn_wrapper."  # HuMo
_SPEECH = "casual_audio_encoder."  # S2V, spelled so
_INJECTOR = "audio_injector."

CONDITIONS: tuple[Weights, ...] = (
    # Fun, SCAIL, ReCamMaster and Camera control
    same(native="{m:ref_conv|patch_embedding_pose|patch_embedding_mask}"),
    same(native="control_adapter.{m:conv|residual_blocks.0.conv1|residual_blocks.0.conv2}"),
    same(native="blocks.{i}.{m:cam_encoder|projector}"),
    # SkyReels V2
    same(native="fps_embedding"),
    same(native="fps_projection.0", diffusers="fps_projection.net.0.proj"),
    same(native="fps_projection.2", diffusers="fps_projection.net.2"),
    # HuMo
    same(native=_AUDIO_BLOCK + "audio_cross_attn.{m:q|k|v|o|norm_q|norm_k}"),
    same(native=_AUDIO_BLOCK + "norm1_audio"),
    same(native="audio_proj.audio_proj_glob_{m:1|2|3|norm}.layer"),
    # S2V
    same(native="{m:trainable_cond_mask|cond_encoder}"),
    same(native=_SPEECH + "encoder.{m:conv1_local|conv1_global|conv2|conv3}.conv"),
    same(native=_SPEECH + "{m:weights|encoder.final_linear|encoder.padding_tokens}"),
    same(native=_INJECTOR + "injector.{i}.{m:q|k|v|o|norm_q|norm_k}"),
    same(native=_INJECTOR + "injector_adain_layers.{i}.linear"),
    same(native=_INJECTOR + "injector_adain_output_layers.{i}"),
    same(native="frame_packer.{m:proj|proj_2x|proj_4x}"),
    # InfiniteTalk and MultiTalk
    same(native="blocks.{i}.audio_cross_attn.{m:q_linear|kv_linear|proj|q_norm|k_norm}"),
    same(native="blocks.{i}.norm_x"),
    same(native="audio_proj.{m:proj1|proj1_vf|proj2|proj3|norm}"),
    # Helios, AnyFlow
    same(diffusers="{m:patch_short|patch_mid|patch_long|far_patch_embedding}"),
    same(diffusers="norm_out.scale_shift_table"),
    same(diffusers="condition_embedder.delta_embedder.linear_{m:1|2}"),
)
