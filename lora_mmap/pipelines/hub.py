"""Adapters in repositories of the Hugging Face hub, through huggingface_hub: from its cache, or downloaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..adapter_metadata import CONFIG_NAME
from ..adapter_sources import FOLDER_NAMES, choose

OPTIONS = ("revision", "token", "local_files_only", "cache_dir", "force_download")


def fetch(
    function: str, repository: str, weight_name: str | None, subfolder: str | None, options: dict[str, Any]
) -> Path:
    """The file ``weight_name`` of a repository, or the only one that looks like an adapter, with its configuration.

    Raises FileNotFoundError where it is not to be had, with what the hub said.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise FileNotFoundError(
            f"[{function}] {repository}: no such file or folder, and huggingface_hub is not there to fetch it"
        ) from error
    try:
        name = weight_name or _find(huggingface_hub, repository, subfolder, options)
        path = Path(huggingface_hub.hf_hub_download(repository, name, subfolder=subfolder, **options))
        if path.name.startswith("adapter_model."):
            _fetch_configuration(huggingface_hub, repository, subfolder, options)
    except (OSError, ValueError) as error:  # what the hub raises for all that may go wrong
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FileNotFoundError(
            f"[{function}] {repository}: no such file or folder, and not to be had from the hub: {reason}"
        ) from error
    return path


def _find(hub: Any, repository: str, subfolder: str | None, options: dict[str, Any]) -> str:
    names = _list(hub, repository, options)
    start = f"{subfolder}/" if subfolder else ""
    here = [name[len(start) :] for name in names if name.startswith(start) and "/" not in name[len(start) :]]
    chosen = choose(here)
    if chosen is None:
        weights = [name for name in here if name.endswith((".safetensors", ".bin"))]
        raise FileNotFoundError(
            f"expected {' or '.join(FOLDER_NAMES)} or one .safetensors file, found {', '.join(weights) or 'none'}; "
            "say which with weight_name="
        )
    return chosen


def _list(hub: Any, repository: str, options: dict[str, Any]) -> list[str]:
    """The repository's files: as the hub has them, or, offline, those in the cache."""
    if not (options.get("local_files_only") or hub.constants.HF_HUB_OFFLINE):
        names: list[str] = hub.HfApi(token=options.get("token")).list_repo_files(
            repository, revision=options.get("revision")
        )
        return names
    known = {name: options[name] for name in ("revision", "cache_dir") if name in options}
    snapshot = Path(hub.snapshot_download(repository, local_files_only=True, **known))
    return [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()]


def _fetch_configuration(hub: Any, repository: str, subfolder: str | None, options: dict[str, Any]) -> None:
    """PEFT's configuration lies beside the weights, where reading them looks for it. It may not be there."""
    with suppress(hub.errors.EntryNotFoundError):
        hub.hf_hub_download(repository, CONFIG_NAME, subfolder=subfolder, **options)
