"""The scripts in examples/ run as users run them, without a network."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from other_process import python_command, run_python

FOLDER = Path(__file__).parents[2] / "examples"


def run(name, folder):
    """In an empty home, so that nothing comes from a cache."""
    command = python_command("", HF_HUB_OFFLINE="1", HF_HOME=str(folder))
    command["args"] = [sys.executable, str(FOLDER / name)]
    return subprocess.run(**command, capture_output=True, timeout=300, cwd=folder)


@pytest.mark.skipif(not (find_spec("diffusers") and find_spec("transformers")), reason="needs diffusers, transformers")
@pytest.mark.parametrize(("name", "models"), [("sdxl_pipeline.py", 1), ("qwen_image_pipeline.py", 2)])
def test_an_example_proves_what_it_shows(name, models, tmp_path):
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("which is the same as before") == models, done.stdout
    assert "DIFFERENT" not in done.stdout


@pytest.mark.parametrize("name", ["sdxl_pipeline.py", "qwen_image_pipeline.py"])
def test_an_example_says_what_it_lacks(name):
    script = """
import runpy, sys
sys.modules["diffusers"] = None
sys.path.insert(0, sys.argv[1])
runpy.run_path(sys.argv[1] + "/" + sys.argv[2], run_name="__main__")
"""
    done = run_python(script, FOLDER, name)
    assert done.returncode == 1
    assert "needs diffusers" in done.stderr
