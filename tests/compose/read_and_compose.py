"""Run by test_one_read.py under strace: composes 1, 2 and 5 adapters and prints what the reports say, as JSON.

Usage: read_and_compose.py FOLDER. Files: FOLDER/<count>_<index>.safetensors; model: FOLDER/model.pt's shapes.
"""

import json
import logging
import sys
from pathlib import Path

import torch
from torch import nn

import lora_mmap

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)


def main(folder):
    reports = {}
    for count in (1, 2, 5):
        model = nn.Sequential(*(nn.Linear(96, 80) for _ in range(6)))
        paths = [folder / f"{count}_{index}.safetensors" for index in range(count)]
        report = lora_mmap.compose(model, [(path, 0.5) for path in paths], strict=True)
        str(report)
        told = report.to_dict()
        reports[count] = {key: told[key] for key in ("bytes_read", "files_opened", "headers_parsed", "keys_classified")}
        assert isinstance(model[0].weight, torch.Tensor)
    print(json.dumps(reports))


main(Path(sys.argv[1]))
