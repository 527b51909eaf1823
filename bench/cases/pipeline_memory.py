"""What stays in memory when many adapters are loaded in a row, with the cache on, and whether it is given back."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lora_mmap

from ..adapters import write_diffusers
from ..by_name import ByName, LoraMmap
from ..memory import anonymous_nbytes, open_files, release_freed
from ..models import Pattern, linears, sdxl_unet
from ..peers import diffusers_peft, missing, onediffx
from ..registry import Settings, case
from ..results import OURS, CaseResult, Goal
from ..timing import progress

_RANK = 32  # on all Linears of the UNet: a file of 174 MB
_ADAPTERS, _QUICK_ADAPTERS = 10, 3  # no more than the cache keeps by default
_FOR_PEERS, _QUICK_FOR_PEERS = 3, 2
_BESIDE_GOAL = 32 << 20
_BUDGET = "LORA_MMAP_CACHE_BYTES"
_SETTINGS = (_BUDGET, "LORA_MMAP_CACHE_SIZE", "ONEDIFFX_LORA_CACHE_SIZE")
_MIB = 1 << 20


@case("pipeline-memory")
def run(settings: Settings) -> CaseResult:
    result = CaseResult("pipeline-memory", "")
    if reason := missing("diffusers"):
        result.description = "Not run."
        result.left_out.append(f"the whole case: {reason}")
        return result
    model = sdxl_unet(reduced=settings.quick)
    pattern = Pattern(model)
    modules = linears(model)
    paths = [
        write_diffusers(settings.scratch / f"memory-{number}.safetensors", modules, _RANK, seed=number)
        for number in range(_QUICK_ADAPTERS if settings.quick else _ADAPTERS)
    ]
    result.description = (
        f"{'A reduced SDXL UNet (--quick: not the real size)' if settings.quick else 'The SDXL UNet'}, bfloat16, in "
        f"place of a pipeline's; {len(paths)} adapters of rank {_RANK} on its {len(modules)} Linears, "
        f"{paths[0].stat().st_size / 1e6:.0f} MB each. Anonymous memory above the level before the first was loaded."
    )
    result.notes = [
        "in a row: each is loaded and fused, unfused and deleted, and then the next; all at once: each is fused beside "
        "those before it",
        "listed is what the report says is held: `retained` (factors) and `restore` (what undoes); with "
        f"{_BUDGET} also lora_cache_info()'s factors; use_cache=True",
        "nothing was loaded before: what the first use of the package and of the model takes is in the figures",
        "freed memory that the C library's allocator keeps counts, for everybody; after clear_lora_cache() it is also "
        "said what is left when the allocator was asked for that (malloc_trim)",
        f"{diffusers_peft.NAME} and {onediffx.NAME} as in the case pipelines; they list nothing and have no cache here",
    ]
    with _no_settings():
        _measure_ours(result, LoraMmap(model, use_cache=True), paths, pattern)
        few = paths[: _QUICK_FOR_PEERS if settings.quick else _FOR_PEERS]
        _measure_peer(result, onediffx.OneDiffX(modules), few, pattern)
        if reason := diffusers_peft.why_not():
            result.left_out.append(f"{diffusers_peft.NAME}: {reason}")
        else:
            _measure_peer(result, diffusers_peft.DiffusersPeftByName(model), few, pattern)
    for path in paths:
        path.unlink()
    return result


@dataclass(frozen=True)
class _Level:
    """Anonymous memory and open files of this process."""

    nbytes: int
    files: int

    @staticmethod
    def now() -> _Level:
        gc.collect()
        return _Level(anonymous_nbytes(), open_files())

    def growth(self) -> int:
        return self.now().nbytes - self.nbytes


@dataclass
class _Loaded:
    """One adapter: growth while it was fused and after it was deleted, what was listed as held, and what was read."""

    growth: int
    retained: int = 0
    restore: int = 0
    cached: int = 0
    bytes_read: int = 0
    headers_parsed: int = 0
    keys_classified: int = 0
    files_opened: int = 0
    growth_after: int = 0
    cached_after: int = 0

    @property
    def listed(self) -> int:
        """Factors that the cache keeps are those that a composition retains, in the same memory."""
        return self.restore + max(self.retained, self.cached)

    @property
    def beside(self) -> int:
        """Bytes that nobody lists."""
        return self.growth - self.listed

    @property
    def beside_after(self) -> int:
        return self.growth_after - self.cached_after


def _measure_ours(result: CaseResult, way: ByName, paths: Sequence[Path], pattern: Pattern) -> None:
    release_freed()
    before = _Level.now()
    first = _in_a_row(result, way, paths, before, "first time")
    _tell(result, "in a row", first)
    second = _in_a_row(result, way, paths, before, "second time")
    factors = [_factor_nbytes(path) for path in paths]
    _require_memory(result, "in a row", [*first, *second])
    parsed = sum(one.headers_parsed + one.files_opened + one.keys_classified for one in second)
    beyond = sum(one.bytes_read for one in second) - sum(factors)
    result.goals.append(
        Goal(
            "the second time each: no header is read, no file opened, no key classified",
            f"{parsed} of these, {beyond} bytes read beside the factors",
            parsed == 0 and beyond == 0,
        )
    )
    _clear(result, before, "after all in a row")
    os.environ[_BUDGET] = str(2 * sum(factors))
    warmed = _in_a_row(result, way, paths, before, f"first time, {_BUDGET} for all")
    again = _in_a_row(result, way, paths, before, f"second time, {_BUDGET} for all")
    del os.environ[_BUDGET]
    _require_memory(result, f"in a row, {_BUDGET} for all", [*warmed, *again])
    read = sum(one.bytes_read for one in again)
    result.goals.append(Goal(f"the second time each, {_BUDGET} for all: nothing is read", f"{read} bytes", read == 0))
    _clear(result, before, f"with {_BUDGET} for all")
    together = _all_at_once(result, way, paths, before, "all at once")
    _tell(result, "all at once", together)
    _require_memory(result, "all at once", together)
    _clear(result, before, "after all at once")
    if pattern.changed(whole=True):
        raise AssertionError(f"{OURS} did not bring every byte back")


def _measure_peer(result: CaseResult, way: ByName, paths: Sequence[Path], pattern: Pattern) -> None:
    for kind, measure in (("in a row", _in_a_row), ("all at once", _all_at_once)):
        release_freed()
        found = measure(result, way, paths, _Level.now(), kind)
        each = ", ".join(f"{one.growth / _MIB:.0f}" for one in found)
        after = found[-1].growth_after / _MIB
        result.summary.append((f"{way.name}, {kind}, while fused", f"{each} MiB; deleted: {after:.0f} MiB"))
        pattern.restore()


def _in_a_row(result: CaseResult, way: ByName, paths: Sequence[Path], before: _Level, kind: str) -> list[_Loaded]:
    found = []
    for number, path in enumerate(paths):
        name = f"adapter {number}"
        one = _loaded(way.load(path, name, fuse=True), before)
        way.unfuse()
        way.forget(name)
        one.growth_after, one.cached_after = before.growth(), _cached()
        found.append(one)
        progress(f"  {way.name}, {kind}, {path.stem}: {one.growth / _MIB:.1f} MiB")
    _record(result, way, kind, found)
    return found


def _all_at_once(result: CaseResult, way: ByName, paths: Sequence[Path], before: _Level, kind: str) -> list[_Loaded]:
    found = []
    for number, path in enumerate(paths):
        found.append(_loaded(way.load(path, f"adapter {number}", fuse=True), before))
        progress(f"  {way.name}, {kind}, {path.stem}: {found[-1].growth / _MIB:.1f} MiB")
    way.unfuse()
    for number in range(len(paths)):
        way.forget(f"adapter {number}")
    found[-1].growth_after, found[-1].cached_after = before.growth(), _cached()
    _record(result, way, kind, found)
    return found


def _loaded(report: object, before: _Level) -> _Loaded:
    if not isinstance(report, lora_mmap.PipelineReport):
        return _Loaded(before.growth())
    held = report.memory
    return _Loaded(
        before.growth(),
        held["retained"],
        held["restore"],
        _cached(),
        report.bytes_read,
        report.headers_parsed,
        report.keys_classified,
        report.files_opened,
    )


def _cached() -> int:
    return int(lora_mmap.lora_cache_info()["bytes"]["factors"])


def _record(result: CaseResult, way: ByName, kind: str, found: Sequence[_Loaded]) -> None:
    result.facts.setdefault(way.name, {})[kind] = [{**vars(one), "beside": one.beside} for one in found]


def _tell(result: CaseResult, kind: str, found: Sequence[_Loaded]) -> None:
    for number, one in enumerate(found):
        figure = (
            f"{one.growth / _MIB:.1f} MiB, listed {one.listed / _MIB:.1f} MiB (retained {one.retained / _MIB:.1f}, "
            f"restore {one.restore / _MIB:.1f})"
        )
        result.summary.append((f"{OURS}, {kind}, {number + 1}, while fused", figure))


def _require_memory(result: CaseResult, kind: str, found: Sequence[_Loaded]) -> None:
    fused = max(one.beside for one in found)
    result.goals.append(
        Goal(f"{kind}: growth beside what is listed <= 32 MiB", f"{fused / _MIB:.1f} MiB", fused <= _BESIDE_GOAL)
    )
    deleted = max(one.beside_after for one in found)
    result.goals.append(
        Goal(f"{kind}, deleted: growth <= 32 MiB", f"{deleted / _MIB:.1f} MiB", deleted <= _BESIDE_GOAL)
    )


def _clear(result: CaseResult, before: _Level, when: str) -> None:
    freed = lora_mmap.clear_lora_cache()
    growth, files = before.growth(), open_files() - before.files
    release_freed()
    trimmed = before.growth()
    found = {**freed, "growth": growth, "growth_after_malloc_trim": trimmed, "files": files}
    result.facts.setdefault("clear_lora_cache", {})[when] = found
    result.goals.append(
        Goal(
            f"clear_lora_cache() {when}: memory and open files are back",
            f"{growth / _MIB:+.1f} MiB ({trimmed / _MIB:+.1f} after malloc_trim), {files:+d} files; {freed['entries']} "
            f"entries and {freed['factors'] / _MIB:.0f} MiB of factors freed",
            growth <= _BESIDE_GOAL and files == 0,
        )
    )


def _factor_nbytes(path: Path) -> int:
    with lora_mmap.open_adapter(path) as adapter:
        return adapter.nbytes


@contextmanager
def _no_settings() -> Iterator[None]:
    """The cache with its defaults."""
    kept = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.pop(_BUDGET, None)
        os.environ.update(kept)
