"""What an adapter says about itself outside its tensors: alpha, rsLoRA, DoRA, per-module patterns.

Sources, as FORMATS know them: PEFT's ``adapter_config.json`` beside ``adapter_model.safetensors``, and the JSON string
``lora_adapter_metadata`` that diffusers puts into the safetensors metadata, its keys prefixed with the component.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import AdapterError

METADATA_KEY = "lora_adapter_metadata"
CONFIG_NAME = "adapter_config.json"


@dataclass(frozen=True)
class LoraConfig:
    """The fields of one PEFT configuration that change the arithmetic. ``source`` names where it was found."""

    source: str
    alpha: float | None = None
    use_rslora: bool = False
    use_dora: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def scale(self, path: str, rank: int) -> tuple[float, str] | None:
        """alpha / rank (rsLoRA: alpha / sqrt(rank)) of the module at ``path``; None where no alpha is given."""
        alpha = self.alpha
        for pattern, value in self.alpha_pattern.items():
            # PEFT's rule: the pattern is the path or ends it at a dot.
            if re.match(rf"(.*\.)?({pattern})$", path):
                alpha = value
                break
        if alpha is None:
            return None
        divisor = math.sqrt(rank) if self.use_rslora else float(rank)
        return alpha / divisor, self.source + (" (rsLoRA)" if self.use_rslora else "")


@dataclass(frozen=True)
class AdapterMetadata:
    """Configurations by component name; the one under ``None`` holds for every key."""

    configs: Mapping[str | None, LoraConfig] = field(default_factory=dict)
    base_model: str = ""  # as trainers call it; says which of several families of equal names

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
    configs: dict[str | None, LoraConfig] = {}
    packed = (header_metadata or {}).get(METADATA_KEY)
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
    config_path = config_beside(path) if path is not None else None
    if config_path is not None:
        fields = _parse(config_path.read_text(encoding="utf-8"), str(config_path))
        configs[None] = _config(fields, CONFIG_NAME, str(config_path))
    return AdapterMetadata(configs)


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
    alpha = fields.get("lora_alpha")
    pattern = fields.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"[open_adapter] {where}: alpha_pattern is {pattern!r}, expected an object")
    return LoraConfig(
        source=source,
        alpha=None if alpha is None else _number(alpha, "lora_alpha", where),
        use_rslora=bool(fields.get("use_rslora")),
        use_dora=bool(fields.get("use_dora")),
        alpha_pattern={
            _pattern(key, where): _number(value, f"alpha_pattern[{key!r}]", where) for key, value in pattern.items()
        },
    )


def _pattern(text: str, where: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise AdapterError(
            f"[open_adapter] {where}: alpha_pattern has {text!r}, expected a regular expression: {error}"
        ) from error
    return text
