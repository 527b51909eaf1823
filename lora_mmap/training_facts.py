"""Who trained an adapter, with what, for which model: told by its metadata, for people, never used to calculate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# kohya's sd-scripts, musubi-tuner and LyCORIS, and the keys of https://github.com/Stability-AI/ModelSpec.
_HEADER = {
    "network_module": "ss_network_module",
    "network_dim": "ss_network_dim",
    "network_alpha": "ss_network_alpha",
    "network_args": "ss_network_args",
    "base_model": "ss_base_model_version",
    "architecture": "modelspec.architecture",
}
_CONFIG = {"peft_type": "peft_type", "base_model": "base_model_name_or_path", "initialisation": "init_lora_weights"}

# A key of the metadata that only one trainer writes.
_MARKS = {
    "ot_branch": "OneTrainer",
    "ot_revision": "OneTrainer",
    "ot_config": "OneTrainer",
    "ss_network_module": "kohya",
    "ss_sd_scripts_commit_hash": "kohya",
    "lora_adapter_metadata": "diffusers",
}


def training_facts(header: Mapping[str, str], configs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What a file's metadata and PEFT configurations tell, as short texts by name; empty where they are silent."""
    facts = {name: header[key] for name, key in _HEADER.items() if header.get(key)}
    for fields in configs:
        for name, key in _CONFIG.items():
            if isinstance(fields.get(key), str):
                facts.setdefault(name, fields[key])
        facts.setdefault("trainer", "PEFT")
    trainer = _trainer(header)
    if trainer:
        facts["trainer"] = trainer
    return facts


def network_args(header: Mapping[str, str]) -> dict[str, Any]:
    """kohya's ``--network_args`` by name, with their JSON-like values; empty where there are none that can be read."""
    args = _object(header.get("ss_network_args"))
    return {name: _truth(value) for name, value in args.items()}


def _truth(value: object) -> object:
    """kohya keeps what stood on the command line: ``rs_lora=False`` is a text."""
    return value.lower() not in ("false", "0", "none", "") if isinstance(value, str) else value


def _trainer(header: Mapping[str, str]) -> str:
    software = header.get("software", "")
    named = _object(software)
    if named.get("name"):
        return " ".join(str(named[key]) for key in ("name", "version") if named.get(key))
    if header.get("ss_network_module", "").startswith("lycoris"):
        return "kohya with LyCORIS"
    return next((trainer for key, trainer in _MARKS.items() if key in header), software)


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
