"""The command line as a user meets it: what is printed, and the exit codes."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import lora_mmap
from lora_mmap.cli import app


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "style.safetensors"
    stem = "lora_unet_transformer_blocks_3_img_mlp_net_2"
    tensors = {f"{stem}.lora_down.weight": torch.ones(4, 8), f"{stem}.lora_up.weight": torch.ones(6, 4)}
    save_file({**tensors, f"{stem}.alpha": torch.tensor(2.0), "rider": torch.ones(1)}, path)
    return path


def test_inspect_prints_what_the_keys_tell(adapter):
    result = run("inspect", adapter)
    assert result.exit_code == 0
    for word in ("qwen_image", "lora_unet_", "kohya", "rank 4", "alpha / rank 0.5", "3 recognised, 1 unknown", "rider"):
        assert word in result.stdout, word


def test_inspect_shows_names_and_metadata_as_they_are(tmp_path):
    """Brackets in a file are no markup of ours."""
    path = tmp_path / "style[bold].safetensors"
    save_file({"m.alpha": torch.tensor(2.0)}, path, {"ss_network_module": "[bold]x[/i]"})
    result = run("inspect", path)
    assert result.exit_code == 1  # an alpha alone is nothing to use
    assert "[bold]x[/i]" in result.stdout
    assert "style[bold].safetensors" in result.stdout.replace("\n", "")  # as long as the table is wide


def test_inspect_as_json_is_the_description(adapter):
    result = run("inspect", adapter, "--json")
    with lora_mmap.open_adapter(adapter) as opened:
        assert json.loads(result.stdout) == opened.describe()


def test_inspect_tells_a_file_without_adapter_keys_by_its_exit_code(tmp_path):
    save_file({"model.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    assert run("inspect", tmp_path / "model.safetensors").exit_code == 1


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_inspect_of_something_unusable(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 3
    assert "broken.safetensors" in result.stderr
    assert not result.stdout


def test_doctor_names_versions_and_the_kernel():
    result = run("doctor")
    assert result.exit_code == 0
    for word in (lora_mmap.__version__, torch.__version__, lora_mmap._C.isa(), "CUDA", "safetensors"):
        assert word in result.stdout, word
