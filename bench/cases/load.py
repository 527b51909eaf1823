"""The drop-in loader beside safetensors: names, many small tensors, one large tensor, and memory afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import lora_mmap

from ..memory import release_freed, resident_nbytes
from ..models import qwen_image_names
from ..peers import safetensors_files
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import Contender, Samples, Spread, interleave

_TENSORS = 3000
_SHAPE = (16, 520)  # bf16: 3000 of them are 50 MB
_LARGE_NBYTES = 1 << 30
_PAGE = 4096
_MEMORY_LOADS = 6
_PEER = "safetensors"
_MIB = 1 << 20
# Two ways that do the same work differ by this much from run to run on shared machines.
_NOISE = 1.05

Load = Callable[[], dict[str, Tensor]]
Touch = Callable[[Tensor], object]


@case("load")
def run(settings: Settings) -> CaseResult:
    result = CaseResult(
        "load",
        f"Loading safetensors files from the page cache to the CPU: {_TENSORS} bf16 tensors {list(_SHAPE)} (50 MB), "
        "and one large tensor.",
        notes=[
            f"{OURS} is `lora_mmap.torch.load_file(path)` with backend=auto, which maps here; {_PEER} is "
            "`safetensors.torch.load_file(path)`, which maps too; pread: backend=pread of either",
            "drop: deleting the dict and its tensors; read: one byte of every 4 KiB page is read; write: the same "
            "byte is written, which copies the page",
            "one by one: safe_open, keys and get_tensor for each, as ComfyUI does",
        ],
    )
    small = _write_small(settings.scratch / "small.safetensors")
    rounds = settings.rounds(full=25, quick=5)
    _names(result, small, rounds)
    _many(result, small, rounds)
    _one_by_one(result, small, rounds)
    _large(result, settings)
    _memory(result, small)
    return result


def _names(result: CaseResult, path: Path, rounds: int) -> None:
    def ours() -> dict[str, float]:
        with lora_mmap.safe_open(path, "pt") as file:
            file.keys()
        return {}

    def theirs() -> dict[str, float]:
        safetensors_files.keys(path)
        return {}

    samples = interleave([Contender(OURS, ours), Contender(_PEER, theirs)], rounds)
    result.add("safe_open + keys", samples, {})
    result.goals.append(_times_faster("safe_open + keys", samples, 2))


def _many(result: CaseResult, path: Path, rounds: int) -> None:
    ways = _ways(path)
    _require_equal(ways)
    samples = interleave([_contender(name, load) for name, load in ways.items()], rounds)
    result.add(f"{_TENSORS} tensors", samples, {})
    result.goals.append(_times_faster(f"load_file, {_TENSORS} tensors", samples, 5, "load"))


def _one_by_one(result: CaseResult, path: Path, rounds: int) -> None:
    def ours() -> dict[str, Tensor]:
        with lora_mmap.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a handle, not a dict

    ways: dict[str, Load] = {OURS: ours, _PEER: lambda: safetensors_files.one_by_one(path)}
    _require_equal(ways)
    samples = interleave([_contender(name, load) for name, load in ways.items()], rounds)
    result.add("one by one", samples, {})


def _large(result: CaseResult, settings: Settings) -> None:
    nbytes = _LARGE_NBYTES // 16 if settings.quick else _LARGE_NBYTES
    path = settings.scratch / "large.safetensors"
    save_file({"weight": torch.arange(nbytes // 8, dtype=torch.int64)}, path)
    path.read_bytes()  # to the page cache
    variant = f"one tensor of {nbytes // _MIB} MiB"
    ways = _ways(path)
    _require_equal(ways)
    rounds = settings.rounds(full=11, quick=5)
    for kind, touch in (("read", _read), ("write", _write)):
        pairs = [_contender(name, load, kind, touch) for name, load in ways.items()]
        samples = interleave(pairs, rounds, before_each=release_freed)
        result.add(f"{variant}, every page {kind}", samples, {})
        result.goals.append(_not_slower(f"{variant}, every page {kind}", samples, OURS, _PEER))
        result.goals.append(
            _not_slower(f"{variant}, every page {kind}, pread", samples, f"{OURS} pread", f"{_PEER} pread")
        )
    path.unlink()


def _memory(result: CaseResult, path: Path) -> None:
    """Resident memory after everything was loaded, written to and deleted, above what it was before the first load."""
    for backend in ("mmap", "pread"):
        left = []
        for load in (lora_mmap.torch.load_file, safetensors_files.load):
            release_freed()
            before = resident_nbytes()
            for _ in range(_MEMORY_LOADS):
                tensors = load(path, backend=backend)
                for tensor in tensors.values():
                    tensor.add_(1)
                del tensors, tensor  # one tensor keeps a whole mapping
                release_freed()
            left.append((resident_nbytes() - before) / _MIB)
        result.goals.append(
            Goal(
                f"{backend}: memory after deletion returns to where it was ({_MEMORY_LOADS} loads, all written to)",
                f"{left[0]:+.1f} MiB ({_PEER}: {left[1]:+.1f} MiB)",
                left[0] < 4,
            )
        )


def _ways(path: Path) -> dict[str, Load]:
    """Every way to load the whole file at once."""
    return {
        OURS: lambda: lora_mmap.torch.load_file(path),
        _PEER: lambda: safetensors_files.load(path, "mmap"),
        f"{OURS} pread": lambda: lora_mmap.torch.load_file(path, backend="pread"),
        f"{_PEER} pread": lambda: safetensors_files.load(path, "pread"),
    }


def _contender(name: str, load: Load, kind: str = "", touch: Touch | None = None) -> Contender:
    def run() -> dict[str, float]:
        begin = time.perf_counter()
        tensors = load()
        loaded = time.perf_counter()
        stages = {"load": loaded - begin}
        if touch is not None:
            for tensor in tensors.values():
                touch(tensor)
            del tensor
            touched = time.perf_counter()
            stages[kind] = touched - loaded
            loaded = touched
        del tensors
        stages["drop"] = time.perf_counter() - loaded
        return stages

    return Contender(name, run)


def _read(tensor: Tensor) -> object:
    return tensor.view(torch.uint8)[::_PAGE].sum()


def _write(tensor: Tensor) -> object:
    return tensor.view(torch.uint8)[::_PAGE].fill_(1)


def _write_small(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    names = qwen_image_names(_TENSORS // 3)
    tensors = {
        f"transformer.{name}.{role}": torch.randn(_SHAPE, generator=generator).to(torch.bfloat16)
        for name in names
        for role in ("lora_A.weight", "lora_B.weight", "diff")
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _require_equal(ways: dict[str, Load]) -> None:
    expected = ways[_PEER]()
    for name, load in ways.items():
        found = load()
        if list(found) != list(expected) or not all(torch.equal(found[key], expected[key]) for key in expected):
            raise AssertionError(f"{name} loads something else than {_PEER}")


def _times_faster(what: str, samples: dict[str, Samples], factor: float, stage: str = "total") -> Goal:
    ours, theirs = samples[OURS].spread(stage).median, samples[_PEER].spread(stage).median
    return Goal(
        f"{what}: at least {factor:g}x faster than {_PEER}",
        f"{theirs / ours:.1f}x ({ours * 1e3:.2f} ms, {theirs * 1e3:.2f} ms)",
        theirs / ours >= factor,
    )


def _not_slower(what: str, samples: dict[str, Samples], ours: str, theirs: str) -> Goal:
    """By the median of the rounds' own ratios: both ways of a round met the same moment of the machine."""
    pairs = zip(samples[ours].stages["total"], samples[theirs].stages["total"], strict=True)
    ratios = Spread.of([mine / other for mine, other in pairs])
    return Goal(
        f"{what}: not slower than {_PEER} (within {_NOISE - 1:.0%})",
        f"{ratios.median:.2f} of its time ({ratios.min:.2f} .. {ratios.max:.2f})",
        ratios.median <= _NOISE,
    )
