"""Everything before the first byte of a factor is read: open, parse, classify, plan. 1000 modules, 3000 keys."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

import lora_mmap
from lora_mmap.adapter import Adapter
from lora_mmap.model_index import ModelIndex
from lora_mmap.model_weights import ModelWeights
from lora_mmap.planner import make_plan
from lora_mmap.tensor_source import FileTensors

from ..adapters import write_kohya
from ..models import qwen_image_names, tree, wan_names
from ..peers import python_regex, safetensors_files
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import Contender, interleave

_MODULES = 1000
_ROWS, _COLS = 16, 16
_GOAL_SECONDS = 5e-3
_BY_STAGE = f"{OURS} by stage"


@case("plan")
def run(settings: Settings) -> CaseResult:
    result = CaseResult(
        "plan",
        f"Open, parse, classify and plan an adapter file of {3 * _MODULES} keys (Qwen-Image's or Wan's module names, "
        f"lora_down / lora_up / alpha). {OURS} is `lora_mmap.check(model, path)`; file in the page cache.",
        notes=[
            "safetensors header: `safe_open` and `keys()`, which parses the header and does nothing else",
            f"python-regex: {python_regex.RULES} expressions tried in turn for every key, written here in the usual "
            "style of Python loaders; it classifies a list of names and neither opens a file nor plans",
            "renamed: Wan's published names, flattened, in the file, diffusers' names in the model",
            "index: the model's names, once per model and not part of the figures beside it",
        ],
    )
    qwen_image, wan = qwen_image_names(_MODULES), wan_names(_MODULES)
    variants = {
        "dotted": (qwen_image, qwen_image, "transformer."),
        "flattened": (qwen_image, [name.replace(".", "_") for name in qwen_image], "lora_unet_"),
        "renamed": (list(wan.values()), [name.replace(".", "_") for name in wan], "lora_unet_"),
    }
    for variant, (in_model, in_file, prefix) in variants.items():
        path = write_kohya(settings.scratch / f"{variant}.safetensors", in_file, prefix, _ROWS, _COLS)
        _measure(result, settings, tree(in_model, _ROWS, _COLS), variant, path)
    return result


def _measure(result: CaseResult, settings: Settings, model: nn.Module, dialect: str, path: Path) -> None:
    report = lora_mmap.check(model, path)
    if report.applied != _MODULES:
        raise AssertionError(f"planned {report.applied} of {_MODULES} modules ({dialect})")
    keys = safetensors_files.keys(path)
    weights = ModelWeights(model)
    weights.refresh()

    def ours() -> dict[str, float]:
        lora_mmap.check(model, path)
        return {}

    def by_stage() -> dict[str, float]:
        begin = time.perf_counter()
        source = FileTensors(str(path))
        parsed = time.perf_counter()
        adapter = Adapter(source, str(path), path)
        classified = time.perf_counter()
        make_plan(weights, [(adapter, 1.0)], None)
        planned = time.perf_counter()
        adapter.close()
        return {"open + parse": parsed - begin, "classify": classified - parsed, "plan": planned - classified}

    def build_index() -> dict[str, float]:
        ModelIndex(model)
        return {}

    def header() -> dict[str, float]:
        safetensors_files.keys(path)
        return {}

    def regex() -> dict[str, float]:
        python_regex.classify(keys)
        return {}

    contenders = [
        Contender(OURS, ours),
        Contender(_BY_STAGE, by_stage),
        Contender(f"{OURS} index", build_index),
        Contender("safetensors header", header),
    ]
    if dialect == "dotted":
        found = python_regex.classify(keys)
        if len(found) != _MODULES:
            raise AssertionError(f"python-regex found {len(found)} of {_MODULES} modules")
        contenders.append(Contender("python-regex", regex))
    samples = interleave(contenders, settings.rounds(full=25, quick=5))
    result.add(dialect, samples, {})
    seconds = samples[OURS].spread().median
    result.goals.append(
        Goal(f"{dialect}: plan <= {_GOAL_SECONDS * 1e3:g} ms", f"{seconds * 1e3:.2f} ms", seconds <= _GOAL_SECONDS)
    )
