"""OneDiffX's calls, on the modules of any pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ArgumentError
from .fusing import PartStep, carry_out, locked, plan_all
from .loads import Load
from .named_adapters import Named, named_adapters
from .parts import Part, Target, parts_of
from .pipeline_report import PipelineReport
from .scales import Scale, scales_of
from .turns import current_strengths, in_turn, loaded_names, take_turns
from .warned import warn


def load_and_fuse_lora(
    pipeline: Any,
    pretrained_model_name_or_path_or_dict: Any,
    adapter_name: str | None = None,
    *,
    lora_scale: Scale = 1.0,
    offload_device: str | torch.device = "cuda",
    use_cache: bool = False,
    memory_efficient: bool = True,
    target: Target | None = None,
    strict: bool = False,
    **options: Any,
) -> PipelineReport:
    """Fuses an adapter into the modules of a pipeline, beside those that are in them: every weight becomes
    ``W0 + sum of strength * alpha / rank * B @ A``, rounded once, as :func:`.compose` does.

    Args:
        pipeline: a diffusers pipeline, any object that has its modules as ``unet``, ``transformer``,
            ``text_encoder`` and so on, a dict of modules by such names, or one module.
        pretrained_model_name_or_path_or_dict: a file, a folder (with ``weight_name``, ``subfolder``), a dict of
            tensors, or the id of a repository (with ``revision``, ``token``, ``local_files_only``, ``cache_dir``,
            ``force_download`` too), which huggingface_hub looks for in its cache and then fetches.
        adapter_name: to speak of it later; ``default_0``, ``default_1``, ... by default. One that is taken is ignored
            with a :class:`.LoraWarning`, and nothing is loaded.
        lora_scale: the strength: for all components, by component (1.0 where left out), or a list in the order of
            ``target``.
        offload_device: where the factors of weights on GPUs stay: there, as long as it has room (``"cuda"``), or in
            host memory (``"cpu"``). What was said last holds for a module. Those of weights on the CPU are in memory.
        use_cache: take the open file with its classified keys from the cache, and keep it there.
        memory_efficient: keep factors at their own dtype. False keeps fp32 copies of them, as OneDiffX did; the weights
            become the same.
        target: the names of the components that are meant. By default the first denoiser and all text encoders, as far
            as the adapter has keys for them; a second denoiser, such as Wan's ``transformer_2``, only where it is named
            or diffusers' ``load_into_transformer_2=True`` is passed.
        strict: raise UnmatchedKeysError when some key finds no home in any of these.

    Returns:
        The reports of the components, false when nothing was applied.

    Raises:
        ArgumentError, AdapterError and its kinds, ModelError, FusionOverflowError, CudaError, MemoryError, OSError.
        After any of them every module has the bytes it had before, and nothing was loaded.
    """
    return Load(
        "load_and_fuse_lora",
        pipeline,
        pretrained_model_name_or_path_or_dict,
        adapter_name,
        True,
        lora_scale,
        offload_device,
        use_cache,
        memory_efficient,
        target,
        strict,
        options,
    ).carry_out()


def load_lora_and_optionally_fuse(
    pipeline: Any,
    pretrained_model_name_or_path_or_dict: Any,
    adapter_name: str | None = None,
    *,
    fuse: bool,
    lora_scale: Scale = None,
    offload_device: str | torch.device = "cuda",
    use_cache: bool = False,
    memory_efficient: bool = True,
    target: Target | None = None,
    strict: bool = False,
    **options: Any,
) -> PipelineReport:
    """As :func:`load_and_fuse_lora`; with ``fuse=False`` the adapter is only opened, its keys are classified and their
    places looked up, and :func:`set_and_fuse_adapters` puts it in later. ``lora_scale`` is then ignored, with a
    :class:`.LoraWarning`. The report says what would be applied."""
    if not fuse and lora_scale is not None:
        warn("lora_scale is ignored where fuse=False: strengths are what set_and_fuse_adapters says")
    return Load(
        "load_lora_and_optionally_fuse",
        pipeline,
        pretrained_model_name_or_path_or_dict,
        adapter_name,
        fuse,
        lora_scale if fuse else None,
        offload_device,
        use_cache,
        memory_efficient,
        target,
        strict,
        options,
    ).carry_out()


def set_and_fuse_adapters(
    pipeline: Any,
    adapter_names: str | Sequence[str] | None = None,
    adapter_weights: Scale | Sequence[Scale] = None,
) -> PipelineReport:
    """Makes these adapters, and no others, the ones in the weights: one pass over each weight, from what it holds to
    ``W0`` plus the new sum, whatever was composed before. Files are read only for adapters that were not active.

    Args:
        pipeline: see :func:`load_and_fuse_lora`.
        adapter_names: loaded ones, in the order in which they are added up. By default those that are active; after
            :func:`unfuse_lora` those that were; if none ever was, all that are loaded. Names that nobody knows are
            ignored with a :class:`.LoraWarning`.
        adapter_weights: a strength, or one for each adapter; each a number, a dict by component, or None for 1.0. By
            default 1.0 for adapters that are named; those that are not keep theirs.

    Returns the reports of the components. Raises ArgumentError where no adapter is loaded, for another number of
    strengths than of names, and for what is no strength; otherwise as :func:`load_and_fuse_lora`.
    """
    function = "set_and_fuse_adapters"
    parts = parts_of(function, pipeline)
    with locked(parts):
        loaded = loaded_names(parts)
        if not loaded:
            raise ArgumentError(f"[{function}] no adapter is loaded, expected load_and_fuse_lora first")
        if adapter_names is None:
            kept = current_strengths(parts)
            names = in_turn(parts, {name for strengths in kept.values() for name, _ in strengths})
        else:
            names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ArgumentError(f"[{function}] adapter_names has {twice[0]!r} more than once")
        for name in names:
            if name not in loaded:
                warn(f"adapter {name!r} is not loaded: ignored; loaded are {', '.join(map(repr, loaded))}")
        if adapter_names is not None or adapter_weights is not None:
            kept = _strengths(function, parts, names, adapter_weights)
        steps = [PartStep(part, named_adapters(part.module).entries_of(kept[part.name])) for part in parts]
        steps = [step for step in steps if step.named or step.part.state.composition.entries]
        plan_all(function, steps)
        reports = carry_out(function, steps)
        take_turns(parts, names)
    return PipelineReport(reports)


def unfuse_lora(pipeline: Any) -> bool:
    """Takes everything out of the modules of a pipeline: every byte is what it was before. Adapters stay loaded, so
    that :func:`set_and_fuse_adapters` finds them. True when there was something to take out. Raises as
    :func:`.reset` does, with nothing changed in any module."""
    function = "unfuse_lora"
    parts = parts_of(function, pipeline)
    with locked(parts):
        fused = [part for part in parts if part.state.composition.held or part.state.composition.entries]
        carry_out(function, [PartStep(part, []) for part in fused])
    return bool(fused)


def delete_adapters(pipeline: Any, adapter_names: str | Sequence[str] | None = None, safe_delete: bool = True) -> None:
    """Forgets adapters, all of them by default, and takes them out of the weights if they are in them; the others
    stay active at their strengths, as if they had been composed alone. ``safe_delete`` is accepted: OneDiffX fuses what
    is left anew where it is True, and subtracts where it is not; here both give the same bytes.

    Raises ArgumentError for a name that is not loaded; otherwise as :func:`load_and_fuse_lora`, with nothing changed.
    """
    function = "delete_adapters"
    parts = parts_of(function, pipeline)
    with locked(parts):
        loaded = loaded_names(parts)
        if adapter_names is None:
            adapter_names = loaded
        names = {adapter_names} if isinstance(adapter_names, str) else set(adapter_names)
        if unknown := names - set(loaded):
            there = ", ".join(map(repr, loaded)) or "nothing"
            raise ArgumentError(f"[{function}] adapter {min(unknown)!r} is not loaded, expected some of {there}")
        carry_out(function, [step for part in parts if (step := _without(part, names)) is not None])
        for part in parts:
            named_adapters(part.module).forget(names)


def get_active_adapters(pipeline: Any) -> list[str]:
    """The names of the adapters that are in the weights of a pipeline's modules, in the order of their activation."""
    parts = parts_of("get_active_adapters", pipeline)
    with locked(parts):
        return in_turn(parts, {name for part in parts for name, _ in _active(part)})


def get_list_adapters(pipeline: Any) -> dict[str, list[str]]:
    """By component, the names of the adapters that are loaded, active or not, in the order of loading."""
    parts = parts_of("get_list_adapters", pipeline)
    with locked(parts):
        return {part.name: names for part in parts if (names := loaded_names([part]))}


def _active(part: Part) -> list[Named]:
    return named_adapters(part.module).placed(part.state.composition.entries)


def _without(part: Part, names: set[str]) -> PartStep | None:
    """The step that takes these out; None where they are not in."""
    active = _active(part)
    left = [(name, entry) for name, entry in active if name not in names]
    if len(left) == len(active):
        return None
    return PartStep(part, left, named_adapters(part.module).nameless(part.state.composition.entries))


def _strengths(
    function: str, parts: Sequence[Part], names: Sequence[str], weights: Scale | Sequence[Scale]
) -> dict[str, list[tuple[str, float]]]:
    """By part, names and strengths."""
    each: list[Any] = list(weights) if isinstance(weights, (list, tuple)) else [weights] * len(names)
    if len(each) != len(names):
        raise ArgumentError(
            f"[{function}] there are {len(each)} adapter_weights, expected {len(names)}: one for each adapter"
        )
    scales = [scales_of(function, one, parts, f"adapter_weights[{at}]") for at, one in enumerate(each)]
    return {part.name: [(name, scale[part.name]) for name, scale in zip(names, scales, strict=True)] for part in parts}
