"""The four calls of the Nunchaku Qwen-Image loader, with its signatures."""

from __future__ import annotations

import logging
import os
from typing import Any

from torch import nn

from .compose import compose, reset, set_multiplier
from .entries import AnySource, Entries
from .report import Report

logger = logging.getLogger("lora_mmap")


def compose_loras_v2(
    model: nn.Module,
    lora_configs: Entries,
    apply_awq_mod: bool | str = "auto",
    save_precompiled_lora: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Replaces whatever is composed into ``model`` by ``lora_configs``, a list of ``(path_or_dict, strength)``.

    Third elements of the tuples are accepted and not used, ``|strength| < 1e-5`` is skipped. Returns a report that is
    false when nothing was applied, where upstream always returned True; raises as :func:`lora_mmap.compose` does.

    ``apply_awq_mod``: whether ``img_mod.1`` and ``txt_mod.1`` are changed where AWQ quantised them; ``"auto"``: as
    ``QWENIMAGE_LORA_APPLY_AWQ_MOD`` says (1: yes). ``options`` are those of :func:`lora_mmap.compose`.
    The other two are accepted: reading and classifying takes milliseconds, there is nothing to precompile.
    """
    if save_precompiled_lora or cache_dir is not None:
        logger.info("compose_loras_v2: nothing is precompiled, reading and classifying an adapter takes milliseconds")
    return compose(model, lora_configs, apply_awq_mod=apply_awq_mod, **options)


def update_lora_params_v2(model: nn.Module, lora: AnySource, strength: float = 1.0, **kwargs: Any) -> Report:
    """Replaces whatever is composed into ``model`` by one adapter; other arguments as for :func:`compose_loras_v2`."""
    return compose_loras_v2(model, [(lora, strength)], **kwargs)


def set_lora_strength_v2(model: nn.Module, strength: float) -> Report | None:
    """Multiplies the strength of everything composed by ``strength``, counted from what was composed: 0 takes it out,
    1 brings it back. Opens and parses nothing. None where nothing was composed."""
    return set_multiplier(model, strength)


def reset_lora_v2(model: nn.Module) -> bool:
    """Takes everything out again, byte for byte. True when there was something to undo."""
    return reset(model)
