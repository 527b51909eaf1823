"""What an adapter says about itself outside its tensors, as far as it changes the result.

PEFT's ``adapter_config.json`` beside ``adapter_model.safetensors``, and the JSON string ``lora_adapter_metadata`` that
diffusers puts into the safetensors metadata, its keys prefixed with the component, change the scale: PEFT saves no
alpha among the tensors (``lora_alpha`` or ``alpha``, ``alpha_pattern``), divides by sqrt(rank) with ``use_rslora``, and
takes the rank of two whole LoKr factors from ``r`` and ``rank_pattern``. An alpha among the tensors goes before all of
it, and ranks are the tensors' own. kohya's ``ss_network_dim``, ``ss_network_alpha`` and ``ss_network_args`` change
nothing, since kohya and LyCORIS save an alpha per module, but for one: LyCORIS' rsLoRA is folded into the alpha
everywhere except in GLoRA. ``fan_in_fan_out`` and ``modules_to_save`` are told by the model and by the tensors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import AdapterError
from .peft_variants import peft_obstacle
from .training_facts import network_args, training_facts

METADATA_KEY = "lora_adapter_metadata"
CONFIG_NAME = "adapter_config.json"


@dataclass(frozen=True)
class LoraConfig:
    """The fields of one PEFT configuration that change the arithmetic. ``source`` names where it was found;
    ``obstacle`` says why factors that it goes with are no plain LoRA, or is empty."""

    source: str
    alpha: float | None = None
    use_rslora: bool = False
    use_dora: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    r: int | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    obstacle: str = ""

    def scale(self, path: str, rank: int) -> tuple[float, str] | None:
        """alpha / rank (rsLoRA: alpha / sqrt(rank)) of the module at ``path``; None where no alpha is given."""
        alpha = _matching(self.alpha_pattern, path, self.alpha)
        if alpha is None:
            return None
        divisor = math.sqrt(rank) if self.use_rslora else float(rank)
        return alpha / divisor, self.source + (" (rsLoRA)" if self.use_rslora else "")

    def rank(self, path: str) -> int | None:
        """The rank that the configuration gives to the module at ``path``; tensors that have one go before it."""
        return _matching(self.rank_pattern, path, self.r)


_Value = TypeVar("_Value", int, float)


def _matching(patterns: Mapping[str, _Value], path: str, otherwise: _Value | None) -> _Value | None:
    """PEFT's rule: the first pattern that is the path or ends it after a dot."""
    return next((value for text, value in patterns.items() if re.match(rf"(.*\.)?({text})$", path)), otherwise)


@dataclass(frozen=True)
class AdapterMetadata:
    """Configurations by component name; the one under ``None`` holds for every key. ``facts`` are for people: who
    trained it, with what, for which model. They change nothing."""

    configs: Mapping[str | None, LoraConfig] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    rslora_in_network_args: bool = False

    @property
    def base_model(self) -> str:
        """The base model as trainers call it; tells apart families of equal names."""
        return " ".join(self.facts[name] for name in ("base_model", "architecture") if name in self.facts)

    def config(self, component: str | None) -> LoraConfig | None:
        return self.configs.get(component) or self.configs.get(None)


# diffusers prefixes the configuration's fields with the component's attribute name in the pipeline.
_COMPONENTS = {
    "transformer": "denoiser",
    "unet": "denoiser",
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    "text_encoder_3": "text_encoder_3",
}


def read_metadata(header_metadata: Mapping[str, str] | None, path: Path | None) -> AdapterMetadata:
    """Gathers what the file's own metadata and a PEFT configuration beside it say. Raises AdapterError if malformed."""
    header = header_metadata or {}
    configs: dict[str | None, LoraConfig] = {}
    found: list[Mapping[str, Any]] = []
    packed = header.get(METADATA_KEY)
    if packed:
        where = f"{path}: metadata '{METADATA_KEY}'"
        by_component: dict[str | None, dict[str, Any]] = {}
        for key, value in _parse(packed, where).items():
            head, _, rest = key.partition(".")
            if rest and head in _COMPONENTS:
                by_component.setdefault(_COMPONENTS[head], {})[rest] = value
            else:
                by_component.setdefault(None, {})[key] = value
        for component, fields in by_component.items():
            configs[component] = _config(fields, METADATA_KEY, where)
        found += by_component.values()
    config_path = config_beside(path) if path is not None else None
    if config_path is not None:
        fields = _parse(config_path.read_text(encoding="utf-8"), str(config_path))
        configs[None] = _config(fields, CONFIG_NAME, str(config_path))
        found.append(fields)
    return AdapterMetadata(configs, training_facts(header, found), bool(network_args(header).get("rs_lora")))


def config_beside(path: Path) -> Path | None:
    """PEFT's configuration for an adapter file that PEFT saved, if it is there."""
    config = path.with_name(CONFIG_NAME)
    return config if path.name.startswith("adapter_model.") and config.is_file() else None


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AdapterError(f"[open_adapter] {where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"[open_adapter] {where}: expected a JSON object, got {type(value).__name__}")
    return value


def _number(value: object, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AdapterError(f"[open_adapter] {where}: {name} is {value!r}, expected a finite number")
    return float(value)


def _config(fields: Mapping[str, Any], source: str, where: str) -> LoraConfig:
    # LoHa's and LoKr's configurations have `alpha` where LoRA's has `lora_alpha`.
    name = "alpha" if str(fields.get("peft_type")).upper() in ("LOHA", "LOKR") else "lora_alpha"
    alpha, rank = fields.get(name), fields.get("r")
    use_dora = bool(fields.get("use_dora"))
    return LoraConfig(
        source=source,
        alpha=None if alpha is None else _number(alpha, name, where),
        use_rslora=bool(fields.get("use_rslora")),
        use_dora=use_dora,
        alpha_pattern={
            key: _number(value, f"alpha_pattern[{key!r}]", where)
            for key, value in _patterns(fields, "alpha_pattern", where)
        },
        r=None if rank is None else int(_number(rank, "r", where)),
        rank_pattern={
            key: int(_number(value, f"rank_pattern[{key!r}]", where))
            for key, value in _patterns(fields, "rank_pattern", where)
        },
        obstacle="it has no magnitude vector beside its factors" if use_dora else peft_obstacle(fields),
    )


def _patterns(fields: Mapping[str, Any], name: str, where: str) -> list[tuple[str, Any]]:
    patterns = fields.get(name) or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"[open_adapter] {where}: {name} is {patterns!r}, expected an object")
    for text in patterns:
        try:
            re.compile(text)
        except re.error as error:
            raise AdapterError(
                f"[open_adapter] {where}: {name} has {text!r}, expected a regular expression: {error}"
            ) from error
    return list(patterns.items())
