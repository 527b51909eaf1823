"""The modules of a pipeline that adapters are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import ArgumentError
from ..families.prefixes import components
from ..model_state import ModelState, state_of, unwrap

# By what pipelines call them, the one that adapters are for first.
_DENOISERS = ("unet", "transformer", "prior", "decoder", "transformer_2", "transformer_ref")
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
# Further ones that diffusers' pipelines load adapters into.
_OTHERS = ("text_conditioner", "connectors")
# The name of a module that was given in place of a pipeline.
WHOLE = "model"

Target = str | Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One module, unwrapped. ``component`` is what prefixes of keys call it, None where only names and shapes tell."""

    name: str
    module: nn.Module
    component: str | None

    @property
    def state(self) -> ModelState:
        return state_of(self.module)


def parts_of(function: str, pipeline: object) -> list[Part]:
    """All modules that an adapter may be for. Raises ArgumentError where there is none."""
    if isinstance(pipeline, nn.Module):
        return [Part(WHOLE, unwrap(function, pipeline), None)]
    if isinstance(pipeline, Mapping):
        found = {str(name): module for name, module in pipeline.items() if module is not None}
        wrong = next((name for name, module in found.items() if not isinstance(module, nn.Module)), None)
        if wrong is not None:
            raise ArgumentError(
                f"[{function}] pipeline['{wrong}'] is a {type(found[wrong]).__name__}, expected a torch.nn.Module"
            )
    else:
        own = {name: getattr(pipeline, name, None) for name in _names(pipeline)}
        found = {name: module for name, module in own.items() if isinstance(module, nn.Module)}
    if not found:
        raise ArgumentError(
            f"[{function}] pipeline is a {type(pipeline).__name__}, expected a torch.nn.Module, a dict of such, or a "
            f"pipeline with one as {', '.join(_DENOISERS[:2])} or {_TEXT_ENCODERS[0]}"
        )
    parts = [Part(name, unwrap(function, module), _component(name)) for name, module in found.items()]
    return list({id(part.module): part for part in reversed(parts)}.values())[::-1]  # one module, one part


def targeted(function: str, pipeline: object, parts: list[Part], target: Target | None) -> list[Part]:
    """The parts that ``target`` names. By default all of them, except that of a pipeline's denoisers only the first is
    meant, as in diffusers. Raises ArgumentError for names that the pipeline lacks."""
    by_name = {part.name: part for part in parts}
    names = [target] if isinstance(target, str) else list(target or by_name)
    if target is None and not isinstance(pipeline, (nn.Module, Mapping)):
        others = [name for name in _DENOISERS if name in by_name][1:]
        names = [name for name in names if name not in others]
    for name in names:
        if name not in by_name:
            raise ArgumentError(
                f"[{function}] target is {name!r}, expected some of {', '.join(map(repr, by_name))}, which the "
                f"{type(pipeline).__name__} has"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def _names(pipeline: object) -> list[str]:
    """What a pipeline may call its modules: the usual names, and what diffusers says it loads adapters into."""
    loadable = getattr(pipeline, "_lora_loadable_modules", None)
    own = [name for name in loadable if isinstance(name, str)] if isinstance(loadable, (list, tuple)) else []
    return list(dict.fromkeys([*_DENOISERS, *_TEXT_ENCODERS, *_OTHERS, *own]))


def _component(name: str) -> str | None:
    if name in _DENOISERS:
        return "denoiser"
    return name if name in components() else None
